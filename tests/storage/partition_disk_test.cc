// A partition and its disk: writes, reads, evictions, removals.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "storage/partition.h"
#include "tests/storage/partition_fixture.h"

namespace kdn::storage {
namespace {

TEST_F(PartitionTest, AReadThatWaitsTooLongIsRefused) {
  Make(1, true);
  partition_->Restore(Info(1), kNow);
  Put(2);  // dirty: leaves no room to read into
  EXPECT_TRUE(Read(1).empty());
  const Actions actions = partition_->OnTick(kLater + absl::Seconds(1));
  const auto* refused = Only<action::Refused>(actions);
  ASSERT_NE(refused, nullptr);
  EXPECT_TRUE(absl::IsDeadlineExceeded(refused->why)) << refused->why;
  EXPECT_EQ(partition_->counters()["failures"], 1u);
}

TEST_F(PartitionTest, DirtyObjectsAreNotEvictedBeforeTheyAreWritten) {
  Make(1, true);
  Actions put = Put(1);
  ASSERT_NE(Only<action::WriteToDisk>(put), nullptr);
  EXPECT_EQ(Block(2), nullptr);
  put.clear();  // the disk lets go before it answers
  EXPECT_NE(Only<action::Granted>(Written(1)), nullptr);
}

TEST_F(PartitionTest, AnEvictedObjectComesBackFromDiskOnceForAllReaders) {
  Make(1, true);
  Put(1);
  partition_->OnDiskWritten(Key(1), absl::OkStatus(), kNow);
  ASSERT_NE(Block(2), nullptr);  // evicts 1, and is dropped again at once
  const Actions first = Read(1);
  const auto* read = Only<action::ReadFromDisk>(first);
  ASSERT_NE(read, nullptr);
  EXPECT_EQ(Only<action::ReadFromDisk>(Read(1)), nullptr) << "shared";
  std::memset(read->block->bytes().data(), 1, kObject);
  const Actions done = partition_->OnDiskRead(Key(1), absl::OkStatus(), kNow);
  int found = 0;
  for (const Action& action : done) {
    if (const auto* it = std::get_if<action::Found>(&action)) {
      ++found;
      EXPECT_EQ(it->info.tier, Tier::kDisk);
    }
  }
  EXPECT_EQ(found, 2);
}

TEST_F(PartitionTest, DurableIsAnsweredAndVisibleOnlyOnceOnDisk) {
  Make(2, true);
  const Actions put = Put(1, Durability::kDurable);
  EXPECT_EQ(Only<action::Committed>(put), nullptr);
  ASSERT_TRUE(Only<action::WriteToDisk>(put)->sync);
  EXPECT_NE(Only<action::Missed>(Read(1)), nullptr);
  EXPECT_NE(Only<action::Committed>(
                partition_->OnDiskWritten(Key(1), absl::OkStatus(), kNow)),
            nullptr);
  EXPECT_NE(Only<action::Found>(Read(1)), nullptr);
}

TEST_F(PartitionTest, ADurableCommitThatFailsWasNeverThere) {
  Make(2, true);
  Put(1, Durability::kDurable);
  const Actions actions = partition_->OnDiskWritten(
      Key(1), absl::ResourceExhaustedError("full"), kNow);
  const auto* refused = Only<action::Refused>(actions);
  ASSERT_NE(refused, nullptr);
  EXPECT_TRUE(absl::IsResourceExhausted(refused->why));
  EXPECT_NE(Only<action::Missed>(Read(1)), nullptr);
}

TEST_F(PartitionTest, DamageOnDiskIsATypedErrorAndTheObjectIsGone) {
  Make(1, true);
  Partition::Options options;
  partition_ = std::make_unique<Partition>(options, arena_);
  partition_->Restore(Info(1), kNow);
  ASSERT_NE(Only<action::ReadFromDisk>(Read(1)), nullptr);
  const Actions actions =
      partition_->OnDiskRead(Key(1), absl::DataLossError("bad"), kNow);
  const auto* refused = Only<action::Refused>(actions);
  ASSERT_NE(refused, nullptr);
  EXPECT_TRUE(absl::IsDataLoss(refused->why));
  EXPECT_NE(Only<action::Missed>(Read(1)), nullptr);
  EXPECT_EQ(partition_->counters()["damaged"], 1u);
}

TEST_F(PartitionTest, AnObjectThatTheDiskRefusedIsEvictedLast) {
  Make(2, true);
  Put(1);
  partition_->OnDiskWritten(Key(1), absl::ResourceExhaustedError("full"), kNow);
  Put(2);
  partition_->OnDiskWritten(Key(2), absl::OkStatus(), kNow);
  // Evicts object 2. Object 1 is colder, but memory has its only copy.
  ASSERT_NE(Block(3), nullptr);
  EXPECT_EQ(partition_->counters()["evictions"], 1u);
  EXPECT_NE(Only<action::Found>(Read(1)), nullptr);
  auto all = partition_->Reserve(Next(), 2 * kObject, kLater, kNow);
  EXPECT_NE(Only<action::Granted>(all), nullptr);
  EXPECT_EQ(partition_->counters()["evictions_lost"], 1u);
  EXPECT_NE(Only<action::Missed>(Read(1)), nullptr);
}

TEST_F(PartitionTest, ASecondDurableCommitSharesTheOutcomeOfThePendingOne) {
  for (const absl::Status& outcome :
       {absl::OkStatus(), absl::ResourceExhaustedError("full")}) {
    Make(3, true);
    Put(1, Durability::kDurable);
    EXPECT_TRUE(Put(1, Durability::kDurable).empty()) << "one write for both";
    int committed = 0;
    int refused = 0;
    for (const Action& action :
         partition_->OnDiskWritten(Key(1), outcome, kNow)) {
      committed += std::holds_alternative<action::Committed>(action) ? 1 : 0;
      refused += std::holds_alternative<action::Refused>(action) ? 1 : 0;
    }
    EXPECT_EQ(committed, outcome.ok() ? 2 : 0);
    EXPECT_EQ(refused, outcome.ok() ? 0 : 2);
  }
}

TEST_F(PartitionTest, ADurableCommitOfAVisibleObjectSyncsThatObject) {
  Make(4, true);
  Put(1);
  EXPECT_EQ(Only<action::Committed>(Put(1, Durability::kDurable)), nullptr);
  EXPECT_TRUE(partition_->OnDiskWritten(Key(1), absl::OkStatus(), kNow).empty())
      << "the write of the first commit was not synced";
  const Actions actions =
      partition_->OnDiskWritten(Key(1), absl::OkStatus(), kNow);
  const auto* committed = Only<action::Committed>(actions);
  ASSERT_NE(committed, nullptr);
  EXPECT_TRUE(committed->existed);
}

TEST_F(PartitionTest, WritesBeyondTheLimitWaitAndFollowInOrder) {
  Make(5, true);
  Partition::Options options;
  options.disk_writes_max = 2;
  partition_ = std::make_unique<Partition>(options, arena_);
  int writes = 0;
  for (uint8_t i = 1; i <= 5; ++i) {
    writes += Only<action::WriteToDisk>(Put(i)) != nullptr ? 1 : 0;
  }
  EXPECT_EQ(writes, 2);
  for (uint8_t i = 1; i <= 3; ++i) {
    const Actions actions =
        partition_->OnDiskWritten(Key(i), absl::OkStatus(), kNow);
    const auto* next = Only<action::WriteToDisk>(actions);
    ASSERT_NE(next, nullptr);
    EXPECT_EQ(next->info.key, Key(static_cast<uint8_t>(i + 2)));
  }
}

TEST_F(PartitionTest, AnObjectEvictedFromDiskStaysOnlyIfItIsInMemory) {
  Make(2, true);
  partition_->Restore(Info(1), kNow);
  Put(2);
  partition_->OnDiskWritten(Key(2), absl::OkStatus(), kNow);
  EvictedFromDisk(2, 9);  // another version
  EXPECT_EQ(partition_->counters()["disk_bytes"], 2 * kObject);
  EvictedFromDisk(1, 1);
  EvictedFromDisk(2, 1);
  EXPECT_NE(Only<action::Missed>(Read(1)), nullptr);
  EXPECT_NE(Only<action::Found>(Read(2)), nullptr);
  EXPECT_EQ(partition_->counters()["evictions_lost"], 1u);
  EXPECT_EQ(partition_->counters()["disk_bytes"], 0u);
}

TEST_F(PartitionTest, AnEvictionFromDiskDuringAReadMakesTheReadAMiss) {
  Make(1, true);
  partition_->Restore(Info(1), kNow);
  ASSERT_NE(Only<action::ReadFromDisk>(Read(1)), nullptr);
  EvictedFromDisk(1, 1);
  EXPECT_NE(Only<action::Missed>(partition_->OnDiskRead(
                Key(1), absl::NotFoundError("evicted"), kNow)),
            nullptr);
  EXPECT_EQ(partition_->counters()["misses"], 1u);
  EXPECT_EQ(partition_->counters()["evictions_lost"], 1u);
  EXPECT_EQ(partition_->counters()["objects"], 0u);
}

TEST_F(PartitionTest, AnObjectEvictedFromDiskDuringItsReadIsWrittenAgain) {
  Make(1, true);
  partition_->Restore(Info(1), kNow);
  ASSERT_NE(Only<action::ReadFromDisk>(Read(1)), nullptr);
  EXPECT_TRUE(EvictedFromDisk(1).empty());
  const Actions actions =
      partition_->OnDiskRead(Key(1), absl::OkStatus(), kNow);
  EXPECT_NE(Only<action::Found>(actions), nullptr);
  EXPECT_NE(Only<action::WriteToDisk>(actions), nullptr);
  EXPECT_TRUE(Written(1).empty());
  EXPECT_EQ(partition_->counters()["disk_bytes"], kObject);
}

TEST_F(PartitionTest, AReaderThatWaitsForRoomGetsTheObjectOfACommit) {
  Make(2, true);
  partition_->Restore(Info(1), kNow);
  auto block = Block(1);
  Put(2);                        // dirty: leaves no room to read into
  EXPECT_TRUE(Read(1).empty());  // waits
  EvictedFromDisk(1, 1);
  const RequestId reader(id_);
  {
    const Actions actions = partition_->Commit(
        Next(), Info(1), std::move(block), Durability::kDurable,
        absl::InfinitePast(), kLater, kNow);
    const auto* found = Only<action::Found>(actions);
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(found->id, reader);
    EXPECT_EQ(found->object->bytes()[0], std::byte{1});
    partition_->CheckInvariants();
  }
  // Memory has the only copy of object 1, and that is the coldest object.
  const Actions actions =
      partition_->OnDiskWritten(Key(1), absl::UnavailableError("bad"), kNow);
  EXPECT_NE(Only<action::Refused>(actions), nullptr);
  EXPECT_EQ(Only<action::ReadFromDisk>(actions), nullptr);
  EXPECT_NE(Only<action::Found>(Read(1)), nullptr);
}

TEST_F(PartitionTest, ACommitOfAnObjectThatTheDiskHasJustEvictedIsNew) {
  for (const bool under_way : {false, true}) {
    SCOPED_TRACE(under_way);
    Make(3, true);
    partition_->Restore(Info(1), kNow);
    auto block = Block(7);
    Put(2);
    if (!under_way) Put(3);  // both are dirty: the read waits for room
    EXPECT_EQ(Only<action::ReadFromDisk>(Read(1)) != nullptr, under_way);
    const RequestId reader(id_);
    EvictedFromDisk(1, 1);
    const Actions actions = partition_->Commit(
        Next(), Info(1, 2), std::move(block), Durability::kReplicated,
        absl::InfinitePast(), kLater, kNow);
    partition_->CheckInvariants();
    const auto* committed = Only<action::Committed>(actions);
    ASSERT_NE(committed, nullptr);
    EXPECT_FALSE(committed->existed);
    EXPECT_EQ(committed->info.version, ObjectVersion(2));
    const auto* found = Only<action::Found>(actions);
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(found->id, reader);
    EXPECT_EQ(found->info.version, ObjectVersion(2));
    EXPECT_EQ(found->object->bytes()[0], std::byte{7});
    ASSERT_NE(Only<action::WriteToDisk>(actions), nullptr);
    if (under_way) {
      partition_->OnDiskRead(Key(1), absl::NotFoundError("evicted"), kNow);
    }
    partition_->OnDiskWritten(Key(1), absl::OkStatus(), kNow);
    partition_->CheckInvariants();
    EXPECT_NE(Only<action::Found>(Read(1)), nullptr);
    EXPECT_EQ(partition_->counters()["disk_bytes"], kObject);
  }
}

TEST_F(PartitionTest, ADiskThatFailsForNowKeepsItsObject) {
  Make(1, true);
  partition_->Restore(Info(1), kNow);
  ASSERT_NE(Only<action::ReadFromDisk>(Read(1)), nullptr);
  EXPECT_NE(Only<action::Refused>(partition_->OnDiskRead(
                Key(1), absl::UnavailableError("I/O error"), kNow)),
            nullptr);
  EXPECT_NE(Only<action::ReadFromDisk>(Read(1)), nullptr) << "tried again";
}

TEST_F(PartitionTest, AfterDamageInMemoryTheNextReadUsesTheDisksCopy) {
  Make(2, true);
  Put(1);
  partition_->OnDiskWritten(Key(1), absl::OkStatus(), kNow);
  EXPECT_TRUE(partition_->Discard(Key(1), ObjectVersion(1)).empty());
  EXPECT_NE(Only<action::ReadFromDisk>(Read(1)), nullptr);
}

TEST_F(PartitionTest, ARemovalEndsWhenTheDiskHasForgotten) {
  Make(2, true);
  Put(1);
  partition_->OnDiskWritten(Key(1), absl::OkStatus(), kNow);
  Actions removal = partition_->Remove(Next(), Key(1), "t", SessionId(5));
  EXPECT_EQ(removal.size(), 1u);
  EXPECT_NE(Only<action::RemoveFromDisk>(removal), nullptr);
  EXPECT_NE(Only<action::Missed>(Read(1)), nullptr) << "gone at once";
  removal = partition_->OnDiskRemoved(Key(1), absl::OkStatus());
  EXPECT_NE(Only<action::Removed>(removal), nullptr);
  removal = partition_->Remove(Next(), Key(1), "t", SessionId(5));
  EXPECT_NE(Only<action::Refused>(removal), nullptr) << "not found";
}

TEST_F(PartitionTest, ARemovalThatTheDiskFailedIsRefusedAndMayBeTriedAgain) {
  Make(2, true);
  Put(1);
  partition_->OnDiskWritten(Key(1), absl::OkStatus(), kNow);
  partition_->Remove(Next(), Key(1), "t", SessionId(5));
  Actions removal =
      partition_->OnDiskRemoved(Key(1), absl::UnavailableError("broken"));
  ASSERT_NE(Only<action::Refused>(removal), nullptr);
  EXPECT_TRUE(absl::IsUnavailable(Only<action::Refused>(removal)->why));
  removal = partition_->Remove(Next(), Key(1), "t", SessionId(5));
  ASSERT_NE(Only<action::RemoveFromDisk>(removal), nullptr);
  EXPECT_EQ(Only<action::RemoveFromDisk>(removal)->shard, ShardId(1));
  removal = partition_->OnDiskRemoved(Key(1), absl::OkStatus());
  EXPECT_NE(Only<action::Removed>(removal), nullptr);
}

TEST_F(PartitionTest, AFailedWriteIsTriedAgainAtGrowingIntervals) {
  Make(2, true);
  ASSERT_NE(Only<action::WriteToDisk>(Put(1)), nullptr);
  absl::Time now = kNow;
  absl::Duration last = absl::ZeroDuration();
  for (int failures = 1; failures <= 12; ++failures) {
    const Actions actions = Written(1, absl::UnavailableError("broken"), now);
    const auto* failed = Only<action::WriteFailed>(actions);
    ASSERT_NE(failed, nullptr);
    EXPECT_EQ(failed->key, Key(1));
    EXPECT_EQ(failed->failures, failures);
    EXPECT_TRUE(absl::IsUnavailable(failed->why));
    EXPECT_TRUE(failed->again_in > last || failed->again_in == absl::Minutes(1))
        << failed->again_in;
    EXPECT_LE(failed->again_in, absl::Minutes(1));
    last = failed->again_in;
    now += last - absl::Milliseconds(1);
    EXPECT_EQ(Only<action::WriteToDisk>(partition_->OnTick(now)), nullptr);
    now += absl::Milliseconds(1);
    EXPECT_NE(Only<action::WriteToDisk>(partition_->OnTick(now)), nullptr);
  }
  EXPECT_EQ(partition_->counters()["disk_write_failures"], 12u);
  EXPECT_EQ(partition_->counters()["disk_bytes"], 0u);
  EXPECT_TRUE(Written(1, absl::OkStatus(), now).empty());
  EXPECT_EQ(partition_->counters()["disk_bytes"], kObject);
  EXPECT_TRUE(partition_->OnTick(now + absl::Hours(1)).empty());
}

TEST_F(PartitionTest, NoMoreWritesAreTriedAgainAtOnceThanTheDiskTakes) {
  Make(20, true);
  for (uint8_t i = 1; i <= 20; ++i) {
    Put(i);
    Written(i, absl::UnavailableError("broken"));
  }
  const auto writes = [](const Actions& actions) {
    return std::count_if(actions.begin(), actions.end(), [](const Action& a) {
      return std::holds_alternative<action::WriteToDisk>(a);
    });
  };
  EXPECT_EQ(writes(partition_->OnTick(kLater)), 8);
  EXPECT_EQ(writes(partition_->OnTick(kLater)), 0);
  EXPECT_EQ(writes(Written(1, absl::OkStatus(), kLater)), 1);
}

// The disk tier has a place in its queue for each of these requests.
TEST_F(PartitionTest, ThePartitionBoundsItsRequestsToTheDisk) {
  Make(100, true);
  int requests = 0;
  const auto count = [&](const Actions& actions) {
    for (const Action& action : actions) {
      requests += std::holds_alternative<action::WriteToDisk>(action) ? 1 : 0;
      requests += std::holds_alternative<action::ReadFromDisk>(action) ? 1 : 0;
    }
  };
  for (uint8_t i = 0; i < 40; ++i) partition_->Restore(Info(i), kNow);
  for (uint8_t i = 0; i < 40; ++i) count(Read(i));
  for (uint8_t i = 40; i < 80; ++i) count(Put(i));
  EXPECT_EQ(requests, Partition::Options().disk_requests_max());
}

TEST_F(PartitionTest, AFlushDoesNotWaitForTheTimeOfTheNextTry) {
  Make(2, true);
  Put(1);
  Written(1, absl::UnavailableError("broken"));
  EXPECT_FALSE(partition_->HasUnwritten());
  EXPECT_NE(Only<action::WriteToDisk>(partition_->Flush(kNow)), nullptr);
  EXPECT_TRUE(partition_->HasUnwritten());
  Written(1);
  EXPECT_FALSE(partition_->HasUnwritten());
  EXPECT_TRUE(partition_->Flush(kNow).empty());
}

TEST_F(PartitionTest, AFailedWriteOfAnObjectThatIsGoneIsNotTriedAgain) {
  Make(2, true);
  Put(1);
  Written(1, absl::UnavailableError("broken"));
  Put(2);
  Written(2, absl::UnavailableError("broken"));
  partition_->Remove(Next(), Key(1), "t", SessionId(1));
  auto all = partition_->Reserve(Next(), 2 * kObject, kLater, kNow);
  EXPECT_NE(Only<action::Granted>(all), nullptr);
  EXPECT_TRUE(partition_->OnTick(kLater).empty());
}

TEST_F(PartitionTest, AHotObjectEvictedFromDiskIsWrittenAgainOnce) {
  Make(2, true);
  Put(1);
  Written(1);
  EXPECT_TRUE(EvictedFromDisk(1).empty()) << "not read since it was written";
  Put(2);
  Written(2);
  Read(2);
  const Actions actions = EvictedFromDisk(2);
  const auto* write = Only<action::WriteToDisk>(actions);
  ASSERT_NE(write, nullptr);
  EXPECT_EQ(write->info.key, Key(2));
  Written(2);
  EXPECT_EQ(partition_->counters()["disk_bytes"], kObject);
  EXPECT_TRUE(EvictedFromDisk(2).empty())
      << "the object was not read since its last write";
}

// Without a copy on disk, a restart would lose an object that is in use.
TEST_F(PartitionTest, AnObjectThatOnlyMemoryHasIsWrittenAgainOnceItIsUsed) {
  enum class Use { kRead, kStore, kTtl, kPin };
  for (const Use use : {Use::kRead, Use::kStore, Use::kTtl, Use::kPin}) {
    SCOPED_TRACE(static_cast<int>(use));
    Make(3, true);
    Put(1);
    Written(1);
    EXPECT_TRUE(EvictedFromDisk(1).empty()) << "not used since it was written";
    EXPECT_TRUE(partition_->OnTick(kNow).empty());
    Actions actions;
    switch (use) {
      case Use::kRead:
        actions = Read(1);
        break;
      case Use::kStore:
        actions = Put(1);
        break;
      case Use::kTtl:
        actions = Put(1, Durability::kReplicated, kLater);
        break;
      case Use::kPin:
        EXPECT_TRUE(Pin(1, 5));
        actions = partition_->OnTick(kNow);
        break;
    }
    ASSERT_NE(Only<action::WriteToDisk>(actions), nullptr);
    Written(1);
    EXPECT_EQ(partition_->counters()["disk_bytes"], kObject);
    if (use == Use::kTtl || use == Use::kPin) Confirmed(1);
    EXPECT_TRUE(partition_->OnTick(kNow).empty()) << "written once";
  }
}

TEST_F(PartitionTest, AWriteThatAFullQueueRefusedIsTriedAgain) {
  Make(3, true);
  for (uint8_t i = 1; i <= 3; ++i) {
    Put(i);
    Written(i, absl::ResourceExhaustedError("all places are taken"));
    EXPECT_NE(Only<action::Found>(Read(i)), nullptr);
  }
  int writes = 0;
  for (const Action& action : partition_->OnTick(kLater)) {
    writes += std::holds_alternative<action::WriteToDisk>(action) ? 1 : 0;
  }
  EXPECT_EQ(writes, 3);
  for (uint8_t i = 1; i <= 3; ++i) Written(i, absl::OkStatus(), kLater);
  EXPECT_EQ(partition_->counters()["disk_bytes"], 3 * kObject);
}

TEST_F(PartitionTest, TheLineOfWritesForgetsObjectsThatAreGone) {
  Make(3, true);
  Partition::Options options;
  options.disk_writes_max = 1;
  partition_ = std::make_unique<Partition>(options, arena_);
  Put(1);  // takes the only place at the disk
  for (int i = 0; i < 100; ++i) {
    Put(2);
    partition_->Remove(Next(), Key(2), "t", SessionId(1));
    partition_->OnDiskRemoved(Key(2), absl::OkStatus());
    partition_->CheckInvariants();
  }
  EXPECT_TRUE(Written(1).empty()) << "no object waits";
  EXPECT_FALSE(partition_->HasUnwritten());
}

// The capacity of memory was larger when the object was stored.
TEST_F(PartitionTest, AnObjectLargerThanTheMemoryIsRefusedAndEvictsNothing) {
  Make(2, true);
  ObjectInfo large = Info(9);
  large.bytes = 3 * kObject;
  partition_->Restore(large, kNow);
  Put(1);
  Written(1);
  const Actions actions = Read(9);
  const auto* refused = Only<action::Refused>(actions);
  ASSERT_NE(refused, nullptr) << "blocks the reads behind it";
  EXPECT_TRUE(absl::IsResourceExhausted(refused->why)) << refused->why;
  EXPECT_EQ(partition_->counters()["memory_objects"], 1u);
  EXPECT_EQ(partition_->counters()["failures"], 1u);
  partition_->Restore(Info(2), kNow);
  EXPECT_NE(Only<action::ReadFromDisk>(Read(2)), nullptr);
}

TEST_F(PartitionTest, NothingIsEvictedForABlockThatCannotFit) {
  Make(4, true);
  for (uint8_t i = 1; i <= 4; ++i) {
    Put(i);
    Written(i);
  }
  Actions read = partition_->Read(Next(), Key(2), "t", kLater, kNow);
  const Loan loan = Only<action::Found>(read)->loan;
  const RequestId all = Next();
  EXPECT_TRUE(partition_->Reserve(all, 4 * kObject, kLater, kNow).empty());
  EXPECT_EQ(partition_->counters()["memory_objects"], 4u);
  read.clear();
  const Actions returned = partition_->OnReturned(loan, kNow);
  ASSERT_NE(Only<action::Granted>(returned), nullptr);
  EXPECT_EQ(Only<action::Granted>(returned)->id, all);
}

TEST_F(PartitionTest, AReaderInTheMiddleOfMemoryDoesNotEvictItsNeighbours) {
  Make(6, true);
  for (uint8_t i = 1; i <= 6; ++i) {
    Put(i);
    Written(i);
  }
  // Objects 1 and 3 are the coldest ones. Object 2 lies between them.
  const Actions read = partition_->Read(Next(), Key(2), "t", kLater, kNow);
  for (const uint8_t i : {4, 5, 6}) Read(i);
  const Actions two = partition_->Reserve(Next(), 2 * kObject, kLater, kNow);
  EXPECT_NE(Only<action::Granted>(two), nullptr);
  EXPECT_EQ(partition_->counters()["evictions"], 2u);
  for (const uint8_t i : {2, 4, 5, 6}) {
    EXPECT_NE(Only<action::Found>(Read(i)), nullptr) << int{i};
  }
}

// The read saw the record before the write, and its answer comes late.
TEST_F(PartitionTest, AReadThatFailedDoesNotLoseARecordThatIsNewer) {
  for (const absl::Status& status :
       {absl::DataLossError("damaged"), absl::NotFoundError("evicted")}) {
    Make(2, true);
    Put(1);
    Written(1);  // not synced
    partition_->Reserve(Next(), 2 * kObject, kLater,
                        kNow);  // evicts the object
    Actions reading = Read(1);
    ASSERT_NE(Only<action::ReadFromDisk>(reading), nullptr);
    Actions put = Put(1, Durability::kDurable);
    ASSERT_NE(Only<action::WriteToDisk>(put), nullptr);
    ASSERT_NE(Only<action::Found>(put), nullptr) << "answers the reader";
    const Loan loan = Only<action::Found>(put)->loan;
    put.clear();
    partition_->OnReturned(loan, kNow);
    ASSERT_NE(Only<action::Committed>(Written(1)), nullptr);
    ASSERT_NE(Block(2), nullptr);  // evicts the object from memory
    EXPECT_TRUE(Read(1).empty()) << "waits for the read in flight";
    const RequestId reader(id_);
    reading.clear();
    EXPECT_NE(Only<action::ReadFromDisk>(ReadDone(1, status)), nullptr);
    const Actions done = ReadDone(1);
    ASSERT_NE(Only<action::Found>(done), nullptr);
    EXPECT_EQ(Only<action::Found>(done)->id, reader);
  }
}

TEST_F(PartitionTest, AnObjectEvictedDuringItsWriteIsWrittenAgain) {
  Make(2, true);
  Put(1);  // the write is in flight
  EXPECT_TRUE(EvictedFromDisk(1).empty());
  const Actions actions = Written(1);
  ASSERT_NE(Only<action::WriteToDisk>(actions), nullptr)
      << "the evicted record may be the written one";
  EXPECT_EQ(partition_->counters()["disk_bytes"], 0u);
  EXPECT_TRUE(Written(1).empty());
  EXPECT_EQ(partition_->counters()["disk_bytes"], kObject);
}

TEST_F(PartitionTest, ANoticeOfAnOlderVersionChangesNothing) {
  Make(2, true);
  Put(1);
  Written(1);
  partition_->Remove(Next(), Key(1), "t", SessionId(1));
  auto block = Block(1);
  partition_->Commit(Next(), Info(1, 2), std::move(block),
                     Durability::kReplicated, absl::InfinitePast(), kLater,
                     kNow);
  partition_->OnDiskRemoved(Key(1), absl::OkStatus());
  Written(1);
  Read(1);
  EXPECT_TRUE(EvictedFromDisk(1, /*version=*/1).empty());
  EXPECT_EQ(partition_->counters()["disk_bytes"], kObject);
}

TEST_F(PartitionTest, DeadlinesEndRequestsInTheirOrder) {
  Make(4, true);
  Partition::Options options;
  options.disk_reads_max = 1;
  partition_ = std::make_unique<Partition>(options, arena_);
  for (uint8_t i = 0; i < 40; ++i) partition_->Restore(Info(i), kNow);
  for (uint8_t i = 0; i < 40; ++i) {
    partition_->Read(Next(), Key(i), "t", kNow + absl::Seconds(1 + i * 7 % 40),
                     kNow);
  }
  absl::Time last = kNow;
  const Actions actions = partition_->OnTick(kNow + absl::Minutes(1));
  ASSERT_EQ(actions.size(), 40u);
  for (const Action& action : actions) {
    const uint64_t i = std::get<action::Refused>(action).id.value() - 1;
    const absl::Time deadline = kNow + absl::Seconds(1 + i * 7 % 40);
    EXPECT_GT(deadline, last);
    last = deadline;
  }
}

TEST_F(PartitionTest, AReadBehindAStaleReadIsServedByAReadOfItsOwn) {
  Make(2, true);
  partition_->Restore(Info(1), kNow);
  ASSERT_NE(Only<action::ReadFromDisk>(Read(1)), nullptr);
  partition_->Remove(Next(), Key(1), "t", SessionId(1));
  partition_->OnDiskRemoved(Key(1), absl::OkStatus());
  Put(1);
  Written(1);
  auto block = Block(2);
  partition_->Discard(Key(1), ObjectVersion(1));  // drops the memory copy
  EXPECT_TRUE(Read(1).empty())
      << "the object is there, so the read waits and does not miss";
  const RequestId reader(id_);
  block = nullptr;
  const Actions again = ReadDone(1, absl::NotFoundError("removed"));
  ASSERT_NE(Only<action::ReadFromDisk>(again), nullptr);
  partition_->CheckInvariants();
  const Actions done = ReadDone(1);
  const auto* found = Only<action::Found>(done);
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->id, reader);
}

TEST_F(PartitionTest, AReaderBehindAStaleReadOfALostObjectMisses) {
  Make(2, true);
  partition_->Restore(Info(1), kNow);
  ASSERT_NE(Only<action::ReadFromDisk>(Read(1)), nullptr);
  partition_->Remove(Next(), Key(1), "t", SessionId(1));
  partition_->OnDiskRemoved(Key(1), absl::OkStatus());
  Put(1);
  Written(1);
  partition_->Discard(Key(1), ObjectVersion(1));
  EXPECT_TRUE(Read(1).empty());
  EXPECT_TRUE(EvictedFromDisk(1).empty());
  EXPECT_NE(Only<action::Missed>(ReadDone(1)), nullptr);
  EXPECT_EQ(partition_->counters()["objects"], 0u);
}

}  // namespace
}  // namespace kdn::storage
