#include "storage/partition.h"

#include <gtest/gtest.h>

#include <cstring>

namespace kdn::storage {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(1000);
const absl::Time kLater = kNow + absl::Seconds(10);
constexpr size_t kObject = 2 * Arena::kPageBytes;

ChunkKey Key(uint8_t i) {
  std::array<uint8_t, 32> bytes{};
  bytes[0] = i;
  return ChunkKey(bytes);
}

template <typename T>
const T* Only(const Actions& actions) {
  const T* found = nullptr;
  for (const Action& action : actions) {
    if (const T* it = std::get_if<T>(&action)) {
      EXPECT_EQ(found, nullptr) << "more than one";
      found = it;
    }
  }
  return found;
}

class PartitionTest : public testing::Test {
 protected:
  void Make(int objects, bool has_disk) {
    arena_ = *Arena::Create(objects * kObject);
    Partition::Options options;
    options.has_disk = has_disk;
    partition_ = std::make_unique<Partition>(options, arena_);
  }
  RequestId Next() { return RequestId(++id_); }
  ObjectInfo Info(uint8_t i, uint64_t version = 1) {
    ObjectInfo info;
    info.key = Key(i);
    info.shard = ShardId(i);
    info.ns = "t";
    info.version = ObjectVersion(version);
    info.bytes = kObject;
    return info;
  }
  std::shared_ptr<ArenaBlock> Block(uint8_t fill) {
    const Actions actions = partition_->Reserve(Next(), kObject, kLater, kNow);
    const auto* granted = Only<action::Granted>(actions);
    if (granted == nullptr) return nullptr;
    std::memset(granted->block->bytes().data(), fill, kObject);
    return granted->block;
  }
  Actions Put(uint8_t i, Durability durability = Durability::kReplicated,
              absl::Time expires = absl::InfinitePast()) {
    auto block = Block(i);
    EXPECT_NE(block, nullptr);
    Actions actions = partition_->Commit(Next(), Info(i), std::move(block),
                                         durability, expires, kLater, kNow);
    partition_->CheckInvariants();
    return actions;
  }
  Actions Read(uint8_t i, const std::string& ns = "t") {
    return partition_->Read(Next(), Key(i), ns, kLater, kNow);
  }
  void TearDown() override { partition_->CheckInvariants(); }

  std::shared_ptr<Arena> arena_;
  std::unique_ptr<Partition> partition_;
  uint64_t id_ = 0;
};

TEST_F(PartitionTest, AReadGivesTheVeryBytesCommitted) {
  Make(4, false);
  ASSERT_NE(Only<action::Committed>(Put(7)), nullptr);
  const Actions actions = Read(7);
  const auto* found = Only<action::Found>(actions);
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->object->bytes()[kObject - 1], std::byte{7});
  EXPECT_EQ(found->info.tier, Tier::kMemory);
}

TEST_F(PartitionTest, NothingIsVisibleBeforeItsCommit) {
  Make(4, false);
  auto block = Block(1);
  EXPECT_NE(Only<action::Missed>(Read(1)), nullptr);
  EXPECT_EQ(partition_->Lookup(Key(1), "t"), nullptr);
}

TEST_F(PartitionTest, AnotherTenantSeesAMiss) {
  Make(4, false);
  Put(1);
  EXPECT_NE(Only<action::Missed>(Read(1, "other")), nullptr);
  EXPECT_EQ(partition_->Lookup(Key(1), "other"), nullptr);
  const Actions removal =
      partition_->Remove(Next(), Key(1), "other", SessionId(1));
  ASSERT_NE(Only<action::Refused>(removal), nullptr);
  EXPECT_TRUE(absl::IsNotFound(Only<action::Refused>(removal)->why));
}

TEST_F(PartitionTest, TheFirstCommitWins) {
  Make(4, false);
  Put(1);
  auto block = Block(99);
  const Actions actions = partition_->Commit(
      Next(), Info(1, 2), std::move(block), Durability::kReplicated,
      absl::InfinitePast(), kLater, kNow);
  const auto* committed = Only<action::Committed>(actions);
  ASSERT_NE(committed, nullptr);
  EXPECT_TRUE(committed->existed);
  EXPECT_EQ(committed->info.version, ObjectVersion(1));
}

TEST_F(PartitionTest, WithoutADiskTheColdestIsEvictedAndCounted) {
  Make(2, false);
  Put(1);
  Put(2);
  Read(1);
  Put(3);
  EXPECT_NE(Only<action::Missed>(Read(2)), nullptr);
  EXPECT_NE(Only<action::Found>(Read(1)), nullptr);
  EXPECT_EQ(partition_->counters().evictions_lost, 1u);
}

TEST_F(PartitionTest, APinnedObjectStaysUntilItsSessionEnds) {
  Make(1, false);
  Put(1);
  ASSERT_TRUE(partition_->Pin(Key(1), "t", SessionId(5), kLater).ok());
  EXPECT_EQ(Block(2), nullptr) << "waits";
  partition_->ReleaseSession(SessionId(5));
  EXPECT_NE(Only<action::Granted>(partition_->OnTick(kNow)), nullptr);
}

TEST_F(PartitionTest, ATtlHoldsUntilItHasRunOut) {
  Make(1, false);
  Put(1, Durability::kReplicated, kNow + absl::Seconds(5));
  EXPECT_TRUE(partition_->Held(Key(1), kNow));
  EXPECT_EQ(Block(2), nullptr);
  EXPECT_NE(Only<action::Granted>(partition_->OnTick(kNow + absl::Seconds(6))),
            nullptr);
}

TEST_F(PartitionTest, ARequestThatWaitsTooLongIsToldSo) {
  Make(1, false);
  Put(1);
  ASSERT_TRUE(partition_->Pin(Key(1), "t", SessionId(5), kLater).ok());
  partition_->Reserve(Next(), kObject, kNow + absl::Seconds(1), kNow);
  const Actions actions = partition_->OnTick(kNow + absl::Seconds(2));
  const auto* refused = Only<action::Refused>(actions);
  ASSERT_NE(refused, nullptr);
  EXPECT_TRUE(absl::IsResourceExhausted(refused->why)) << refused->why;
}

TEST_F(PartitionTest, AReadThatWaitsTooLongIsToldSo) {
  Make(1, true);
  partition_->Restore(Info(1));
  Put(2);  // dirty: leaves no room to read into
  EXPECT_TRUE(Read(1).empty());
  const Actions actions = partition_->OnTick(kLater + absl::Seconds(1));
  const auto* refused = Only<action::Refused>(actions);
  ASSERT_NE(refused, nullptr);
  EXPECT_TRUE(absl::IsDeadlineExceeded(refused->why)) << refused->why;
  EXPECT_EQ(partition_->counters().failures, 1u);
}

TEST_F(PartitionTest, DirtyObjectsAreNotEvictedBeforeTheyAreWritten) {
  Make(1, true);
  const Actions put = Put(1);
  ASSERT_NE(Only<action::WriteToDisk>(put), nullptr);
  EXPECT_EQ(Block(2), nullptr);
  const Actions actions =
      partition_->OnDiskWritten(Key(1), absl::OkStatus(), kNow);
  (void)put;
  EXPECT_EQ(Only<action::Granted>(actions), nullptr)
      << "the write's own reference still holds the memory";
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

TEST_F(PartitionTest, DurableWithoutADiskIsRefused) {
  Make(2, false);
  const auto* refused = Only<action::Refused>(Put(1, Durability::kDurable));
  EXPECT_NE(refused, nullptr);
}

TEST_F(PartitionTest, DamageOnDiskIsATypedErrorAndTheObjectIsGone) {
  Make(1, true);
  Partition::Options options;
  partition_ = std::make_unique<Partition>(options, arena_);
  partition_->Restore(Info(1));
  ASSERT_NE(Only<action::ReadFromDisk>(Read(1)), nullptr);
  const Actions actions =
      partition_->OnDiskRead(Key(1), absl::DataLossError("bad"), kNow);
  const auto* refused = Only<action::Refused>(actions);
  ASSERT_NE(refused, nullptr);
  EXPECT_TRUE(absl::IsDataLoss(refused->why));
  EXPECT_NE(Only<action::Missed>(Read(1)), nullptr);
  EXPECT_EQ(partition_->counters().damaged, 1u);
}

TEST_F(PartitionTest, WhatTheDiskRefusedIsEvictedLast) {
  Make(2, true);
  Put(1);
  partition_->OnDiskWritten(Key(1), absl::ResourceExhaustedError("full"), kNow);
  Put(2);
  partition_->OnDiskWritten(Key(2), absl::OkStatus(), kNow);
  ASSERT_NE(Block(3), nullptr);  // colder, but the only copy there is
  EXPECT_EQ(partition_->counters().evictions, 1u);
  EXPECT_NE(Only<action::Found>(Read(1)), nullptr);
  auto all = partition_->Reserve(Next(), 2 * kObject, kLater, kNow);
  EXPECT_NE(Only<action::Granted>(all), nullptr);
  EXPECT_EQ(partition_->counters().evictions_lost, 1u);
  EXPECT_NE(Only<action::Missed>(Read(1)), nullptr);
}

TEST_F(PartitionTest, ADurableCommitOfWhatIsPendingSharesItsOutcome) {
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

TEST_F(PartitionTest, ADurableCommitOfWhatIsVisibleFindsItThere) {
  Make(4, true);
  Put(1);
  EXPECT_EQ(Only<action::Committed>(Put(1, Durability::kDurable)), nullptr);
  EXPECT_TRUE(partition_->OnDiskWritten(Key(1), absl::OkStatus(), kNow).empty())
      << "the write of the first was not synced";
  const Actions actions =
      partition_->OnDiskWritten(Key(1), absl::OkStatus(), kNow);
  const auto* committed = Only<action::Committed>(actions);
  ASSERT_NE(committed, nullptr);
  EXPECT_TRUE(committed->existed);
}

TEST_F(PartitionTest, OnlySoManyWritesAreOutstandingTheRestFollowInOrder) {
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

TEST_F(PartitionTest, OneMoreThanMayWaitIsRefusedAtOnce) {
  arena_ = *Arena::Create(kObject);
  Partition::Options options;
  options.waiting_max = 2;
  partition_ = std::make_unique<Partition>(options, arena_);
  auto taken = Block(1);
  EXPECT_EQ(Block(2), nullptr);
  EXPECT_EQ(Block(3), nullptr);
  const Actions actions = partition_->Reserve(Next(), kObject, kLater, kNow);
  const auto* refused = Only<action::Refused>(actions);
  ASSERT_NE(refused, nullptr);
  EXPECT_TRUE(absl::IsResourceExhausted(refused->why));
}

TEST_F(PartitionTest, EvictedFromDiskItLivesOnInMemoryOrIsGone) {
  Make(2, true);
  partition_->Restore(Info(1));
  Put(2);
  partition_->OnDiskWritten(Key(2), absl::OkStatus(), kNow);
  partition_->OnEvictedFromDisk(Key(2), ObjectVersion(9));  // another version
  EXPECT_EQ(partition_->counters().disk_bytes, 2 * kObject);
  partition_->OnEvictedFromDisk(Key(1), ObjectVersion(1));
  partition_->OnEvictedFromDisk(Key(2), ObjectVersion(1));
  EXPECT_NE(Only<action::Missed>(Read(1)), nullptr);
  EXPECT_NE(Only<action::Found>(Read(2)), nullptr);
  EXPECT_EQ(partition_->counters().evictions_lost, 1u);
  EXPECT_EQ(partition_->counters().disk_bytes, 0u);
}

TEST_F(PartitionTest, EvictedFromDiskWhileItIsReadIsAMiss) {
  Make(1, true);
  partition_->Restore(Info(1));
  ASSERT_NE(Only<action::ReadFromDisk>(Read(1)), nullptr);
  partition_->OnEvictedFromDisk(Key(1), ObjectVersion(1));
  EXPECT_NE(Only<action::Missed>(partition_->OnDiskRead(
                Key(1), absl::NotFoundError("evicted"), kNow)),
            nullptr);
  EXPECT_EQ(partition_->counters().misses, 1u);
  EXPECT_EQ(partition_->counters().evictions_lost, 1u);
  EXPECT_EQ(partition_->counters().objects, 0u);
}

TEST_F(PartitionTest, AReaderThatWaitsForRoomGetsWhatACommitBrings) {
  Make(2, true);
  partition_->Restore(Info(1));
  auto block = Block(1);
  Put(2);                        // dirty: leaves no room to read into
  EXPECT_TRUE(Read(1).empty());  // waits
  partition_->OnEvictedFromDisk(Key(1), ObjectVersion(1));
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
  // The only copy there is now, and the coldest.
  const Actions actions =
      partition_->OnDiskWritten(Key(1), absl::UnavailableError("bad"), kNow);
  EXPECT_NE(Only<action::Refused>(actions), nullptr);
  EXPECT_EQ(Only<action::ReadFromDisk>(actions), nullptr);
  EXPECT_NE(Only<action::Found>(Read(1)), nullptr);
}

TEST_F(PartitionTest, ACommitOfWhatTheDiskHasJustEvictedIsNew) {
  for (const bool under_way : {false, true}) {
    SCOPED_TRACE(under_way);
    Make(3, true);
    partition_->Restore(Info(1));
    auto block = Block(7);
    Put(2);
    if (!under_way) Put(3);  // dirty both: the read waits for room
    EXPECT_EQ(Only<action::ReadFromDisk>(Read(1)) != nullptr, under_way);
    const RequestId reader(id_);
    partition_->OnEvictedFromDisk(Key(1), ObjectVersion(1));
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
    EXPECT_EQ(partition_->counters().disk_bytes, kObject);
  }
}

TEST_F(PartitionTest, ADiskThatFailsForNowKeepsItsObject) {
  Make(1, true);
  partition_->Restore(Info(1));
  ASSERT_NE(Only<action::ReadFromDisk>(Read(1)), nullptr);
  EXPECT_NE(Only<action::Refused>(partition_->OnDiskRead(
                Key(1), absl::UnavailableError("I/O error"), kNow)),
            nullptr);
  EXPECT_NE(Only<action::ReadFromDisk>(Read(1)), nullptr) << "tried again";
}

TEST_F(PartitionTest, ADamagedVersionIsDiscardedAndOnlyThatVersion) {
  Make(2, false);
  Put(1);
  partition_->Discard(Key(1), ObjectVersion(7));
  EXPECT_NE(Only<action::Found>(Read(1)), nullptr);
  partition_->Discard(Key(1), ObjectVersion(1));
  EXPECT_NE(Only<action::Missed>(Read(1)), nullptr);
  EXPECT_EQ(partition_->counters().damaged, 1u);
}

TEST_F(PartitionTest, DamageInMemoryLeavesTheDisksCopyToBeProved) {
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

TEST_F(PartitionTest, ARemovalTheDiskFailedIsToldAndTriedAgain) {
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

TEST_F(PartitionTest, RemoveIsRefusedWhileAnotherSessionPinsIt) {
  Make(2, true);
  Put(1);
  ASSERT_TRUE(partition_->Pin(Key(1), "t", SessionId(5), kLater).ok());
  const Actions refused = partition_->Remove(Next(), Key(1), "t", SessionId(6));
  ASSERT_NE(Only<action::Refused>(refused), nullptr);
  EXPECT_TRUE(absl::IsFailedPrecondition(Only<action::Refused>(refused)->why));
  const Actions removal = partition_->Remove(Next(), Key(1), "t", SessionId(5));
  EXPECT_NE(Only<action::RemoveFromDisk>(removal), nullptr);
  EXPECT_NE(Only<action::Missed>(Read(1)), nullptr);
  // The write under way answers for an object that is gone.
  partition_->OnDiskWritten(Key(1), absl::OkStatus(), kNow);
}

TEST_F(PartitionTest, AnAbsurdReservationIsRefusedAtOnce) {
  Make(1, false);
  const Actions actions =
      partition_->Reserve(Next(), 2 * kObject, kLater, kNow);
  EXPECT_TRUE(absl::IsInvalidArgument(Only<action::Refused>(actions)->why));
}

}  // namespace
}  // namespace kdn::storage
