// Pins and TTLs of a partition, and how the disk confirms them.
#include <gtest/gtest.h>

#include "storage/partition.h"
#include "tests/storage/partition_fixture.h"

namespace kdn::storage {
namespace {

TEST_F(PartitionTest, APinnedObjectStaysUntilItsSessionEnds) {
  Make(1, false);
  Put(1);
  ASSERT_TRUE(Pin(1, 5));
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

TEST_F(PartitionTest, ATtlOfAnObjectThatTheDiskIsEvictingKeepsTheStoredBytes) {
  Make(1, true);
  partition_->Restore(Info(1), kNow);
  const Actions put = Put(1, Durability::kReplicated, kLater);
  ASSERT_NE(Only<action::Committed>(put), nullptr);
  EXPECT_TRUE(Only<action::Committed>(put)->existed);
  EXPECT_NE(Only<action::ConfirmHold>(put), nullptr);
  EXPECT_EQ(Block(2), nullptr) << "the disk may have evicted its copy";
  const Actions evicted = EvictedFromDisk(1);
  EXPECT_EQ(Only<action::HeldLost>(evicted), nullptr);
  EXPECT_NE(Only<action::WriteToDisk>(evicted), nullptr);
  EXPECT_NE(Only<action::Found>(Read(1)), nullptr);
  EXPECT_TRUE(Confirmed(1, absl::NotFoundError("evicted")).empty());
}

TEST_F(PartitionTest, ATtlOfAConfirmedObjectNeedsNoMemory) {
  Make(1, true);
  partition_->Restore(Info(1), kNow);
  partition_->Pin(Next(), Key(1), "t", SessionId(5), kLater);
  ASSERT_NE(Only<action::Pinned>(Confirmed(1)), nullptr);
  EXPECT_NE(Only<action::Committed>(Put(1, Durability::kReplicated, kLater)),
            nullptr);
  EXPECT_EQ(partition_->counters()["memory_objects"], 0u);
}

TEST_F(PartitionTest, ATtlOfAnotherVersionOnDiskWaitsForTheDisk) {
  enum class How { kConfirmed, kEvicted, kBroken, kLate };
  for (const How how :
       {How::kConfirmed, How::kEvicted, How::kBroken, How::kLate}) {
    SCOPED_TRACE(static_cast<int>(how));
    Make(1, true);
    partition_->Restore(Info(1, /*version=*/2), kNow);
    const Actions put = Put(1, Durability::kReplicated, kLater);
    EXPECT_EQ(Only<action::Committed>(put), nullptr);
    ASSERT_NE(Only<action::ConfirmHold>(put), nullptr);
    if (how == How::kConfirmed) {
      const Actions actions = Confirmed(1);
      ASSERT_NE(Only<action::Committed>(actions), nullptr);
      EXPECT_TRUE(Only<action::Committed>(actions)->existed);
      EXPECT_TRUE(partition_->Held(Key(1), kNow));
      continue;
    }
    const Actions actions = how == How::kEvicted ? EvictedFromDisk(1, 2)
                            : how == How::kBroken
                                ? Confirmed(1, absl::UnavailableError("broken"))
                                : partition_->OnTick(kLater);
    const auto* refused = Only<action::Refused>(actions);
    ASSERT_NE(refused, nullptr);
    EXPECT_EQ(absl::IsDeadlineExceeded(refused->why), how == How::kLate);
    EXPECT_EQ(absl::IsUnavailable(refused->why), how != How::kLate);
    EXPECT_EQ(Only<action::HeldLost>(actions), nullptr) << "not acknowledged";
    EXPECT_FALSE(partition_->Held(Key(1), kNow)) << "the TTL was refused";
  }
}

TEST_F(PartitionTest, ARefusedTtlLeavesTheTtlThatWasAcknowledged) {
  Make(1, true);
  ObjectInfo stored = Info(1, /*version=*/2);
  stored.expires = kNow + absl::Seconds(2);
  partition_->Restore(stored, kNow);
  ASSERT_NE(Only<action::ConfirmHold>(
                Put(1, Durability::kReplicated, kNow + absl::Seconds(9))),
            nullptr);
  ASSERT_NE(Only<action::Refused>(Confirmed(1, absl::UnavailableError("bad"))),
            nullptr);
  EXPECT_TRUE(partition_->Held(Key(1), kNow + absl::Seconds(1)));
  EXPECT_FALSE(partition_->Held(Key(1), kNow + absl::Seconds(3)));
}

TEST_F(PartitionTest, ACommitThatWaitsForADamagedVersionIsToldToStoreAgain) {
  Make(1, true);
  partition_->Restore(Info(1, /*version=*/2), kNow);
  ASSERT_NE(Only<action::ConfirmHold>(Put(1, Durability::kReplicated, kLater)),
            nullptr);
  ASSERT_NE(Only<action::ReadFromDisk>(Read(1)), nullptr);
  int unavailable = 0;
  for (const Action& action : ReadDone(1, absl::DataLossError("damaged"))) {
    const auto* refused = std::get_if<action::Refused>(&action);
    if (refused == nullptr) continue;
    unavailable += absl::IsUnavailable(refused->why) ? 1 : 0;
  }
  EXPECT_EQ(unavailable, 1) << "the commit, not the reader";
}

TEST_F(PartitionTest, AHoldIsReportedBeforeItsPinAndWhenItEnds) {
  Make(2, false);
  Put(1);
  Actions actions = partition_->Pin(Next(), Key(1), "t", SessionId(5), kLater);
  ASSERT_EQ(actions.size(), 2u);
  const auto* held = std::get_if<action::HoldChanged>(&actions[0]);
  ASSERT_NE(held, nullptr);
  EXPECT_EQ(held->key, Key(1));
  EXPECT_TRUE(held->held);
  EXPECT_TRUE(std::holds_alternative<action::Pinned>(actions[1]));
  ASSERT_TRUE(Pin(1, 6));
  EXPECT_TRUE(partition_->ReleaseSession(SessionId(5)).empty());
  actions = partition_->OnTick(kLater);
  ASSERT_NE(Only<action::HoldChanged>(actions), nullptr);
  EXPECT_FALSE(Only<action::HoldChanged>(actions)->held);
}

TEST_F(PartitionTest, ARemovedObjectIsNotHeld) {
  Make(2, false);
  Put(1, Durability::kReplicated, kLater);
  ASSERT_TRUE(Pin(1, 5));
  const Actions actions = partition_->Remove(Next(), Key(1), "t", SessionId(5));
  ASSERT_NE(Only<action::HoldChanged>(actions), nullptr);
  EXPECT_FALSE(Only<action::HoldChanged>(actions)->held);
  EXPECT_FALSE(partition_->Held(Key(1), kNow));
}

TEST_F(PartitionTest, ARemovalIsRefusedWhileAnotherSessionPinsTheObject) {
  Make(2, true);
  Put(1);
  ASSERT_TRUE(Pin(1, 5));
  const Actions refused = partition_->Remove(Next(), Key(1), "t", SessionId(6));
  ASSERT_NE(Only<action::Refused>(refused), nullptr);
  EXPECT_TRUE(absl::IsFailedPrecondition(Only<action::Refused>(refused)->why));
  const Actions removal = partition_->Remove(Next(), Key(1), "t", SessionId(5));
  EXPECT_NE(Only<action::RemoveFromDisk>(removal), nullptr);
  EXPECT_NE(Only<action::Missed>(Read(1)), nullptr);
  // The answer to the write comes when the object is gone.
  partition_->OnDiskWritten(Key(1), absl::OkStatus(), kNow);
}

TEST_F(PartitionTest, AnAcknowledgedPinOutlivesTheDisksCopy) {
  Make(1, true);
  Put(1);
  Written(1);
  ASSERT_TRUE(Pin(1, 5));
  ASSERT_NE(Only<action::WriteToDisk>(EvictedFromDisk(1)), nullptr);
  Written(1, absl::ResourceExhaustedError("full"));
  EXPECT_EQ(Block(2), nullptr) << "memory has the only copy, and it is held";
  EXPECT_TRUE(partition_->Held(Key(1), kNow));
  const absl::Time later = kNow + absl::Seconds(1);
  ASSERT_NE(Only<action::WriteToDisk>(partition_->OnTick(later)), nullptr);
  EXPECT_NE(Only<action::ConfirmHold>(Written(1, absl::OkStatus(), later)),
            nullptr);
  EXPECT_TRUE(Confirmed(1, absl::NotFoundError("evicted")).empty())
      << "this answer is about the copy that was evicted";
  EXPECT_NE(Only<action::Granted>(Confirmed(1)), nullptr) << "held on disk";
  EXPECT_TRUE(partition_->Held(Key(1), kNow));
}

TEST_F(PartitionTest, APinOfAnObjectOnDiskWaitsForTheDisk) {
  Make(1, true);
  partition_->Restore(Info(1), kNow);
  Actions actions = partition_->Pin(Next(), Key(1), "t", SessionId(5), kLater);
  ASSERT_EQ(actions.size(), 2u);
  EXPECT_TRUE(std::holds_alternative<action::HoldChanged>(actions[0]));
  const auto* confirm = std::get_if<action::ConfirmHold>(&actions[1]);
  ASSERT_NE(confirm, nullptr);
  EXPECT_EQ(confirm->shard, ShardId(1));
  EXPECT_TRUE(
      partition_->Pin(Next(), Key(1), "t", SessionId(6), kLater).empty());
  EXPECT_EQ(Confirmed(1).size(), 2u) << "both pins";
  EXPECT_TRUE(Pin(1, 7)) << "the hold is known to the disk";
}

TEST_F(PartitionTest, APinOfAnObjectThatTheDiskIsEvictingIsRefused) {
  for (const bool notice_first : {false, true}) {
    SCOPED_TRACE(notice_first);
    Make(1, true);
    partition_->Restore(Info(1), kNow);
    partition_->Pin(Next(), Key(1), "t", SessionId(5), kLater);
    const Actions actions = notice_first
                                ? EvictedFromDisk(1)
                                : Confirmed(1, absl::NotFoundError("evicted"));
    const auto* refused = Only<action::Refused>(actions);
    ASSERT_NE(refused, nullptr);
    EXPECT_TRUE(absl::IsNotFound(refused->why));
    EXPECT_EQ(Only<action::HeldLost>(actions), nullptr) << "not acknowledged";
    EXPECT_FALSE(Only<action::HoldChanged>(actions)->held);
    EXPECT_NE(Only<action::Missed>(Read(1)), nullptr);
    const Actions rest = notice_first
                             ? Confirmed(1, absl::NotFoundError("evicted"))
                             : EvictedFromDisk(1);
    EXPECT_TRUE(rest.empty());
  }
}

TEST_F(PartitionTest, AnObjectPinnedInMemoryStaysThereUntilTheDiskConfirms) {
  Make(1, true);
  Put(1);
  Written(1);
  ASSERT_TRUE(Pin(1, 5));
  EXPECT_EQ(Block(2), nullptr) << "the disk may have evicted its copy";
  EXPECT_NE(Only<action::Granted>(Confirmed(1)), nullptr);
  EXPECT_TRUE(partition_->Held(Key(1), kNow));
}

TEST_F(PartitionTest, AnObjectPinnedInMemoryIsWrittenAgainIfTheDiskHasNoCopy) {
  Make(1, true);
  Put(1);
  Written(1);
  ASSERT_TRUE(Pin(1, 5));
  EXPECT_NE(
      Only<action::WriteToDisk>(Confirmed(1, absl::NotFoundError("evicted"))),
      nullptr);
  EXPECT_TRUE(EvictedFromDisk(1).empty()) << "the notice comes late";
  EXPECT_NE(Only<action::WriteToDisk>(Written(1)), nullptr)
      << "the evicted record may be the written one";
  EXPECT_NE(Only<action::ConfirmHold>(Written(1)), nullptr);
  EXPECT_EQ(Block(2), nullptr) << "not confirmed yet";
  EXPECT_NE(Only<action::Granted>(Confirmed(1)), nullptr);
}

TEST_F(PartitionTest, APinThatTheDiskCannotConfirmIsRefused) {
  Make(1, true);
  partition_->Restore(Info(1), kNow);
  partition_->Pin(Next(), Key(1), "t", SessionId(5), kLater);
  Actions actions = Confirmed(1, absl::UnavailableError("broken"));
  ASSERT_NE(Only<action::Refused>(actions), nullptr);
  EXPECT_TRUE(absl::IsUnavailable(Only<action::Refused>(actions)->why));
  EXPECT_FALSE(partition_->Held(Key(1), kNow));
  EXPECT_NE(Only<action::ReadFromDisk>(Read(1)), nullptr) << "still there";
}

TEST_F(PartitionTest, APinThatEndsBeforeTheDiskAnswersIsRefusedThen) {
  Make(1, true);
  partition_->Restore(Info(1), kNow);
  partition_->Pin(Next(), Key(1), "t", SessionId(5), kLater);
  const Actions actions = partition_->ReleaseSession(SessionId(5));
  EXPECT_NE(Only<action::Refused>(actions), nullptr);
  // The next pin needs an answer of its own.
  EXPECT_NE(Only<action::ConfirmHold>(
                partition_->Pin(Next(), Key(1), "t", SessionId(6), kLater)),
            nullptr);
  EXPECT_TRUE(Confirmed(1).empty())
      << "this answer is about the hold that has ended";
  EXPECT_NE(Only<action::Pinned>(Confirmed(1)), nullptr);
}

TEST_F(PartitionTest, AWaitingPinIsRefusedWhenItsOwnLeaseEnds) {
  enum class How { kTime, kUnpin, kSession };
  for (const How how : {How::kTime, How::kUnpin, How::kSession}) {
    SCOPED_TRACE(static_cast<int>(how));
    Make(1, true);
    partition_->Restore(Info(1), kNow);
    partition_->Pin(Next(), Key(1), "t", SessionId(5), kLater);
    partition_->Pin(Next(), Key(1), "t", SessionId(6),
                    kLater + absl::Seconds(1));
    const Actions actions =
        how == How::kTime ? partition_->OnTick(kLater)
        : how == How::kUnpin
            ? partition_->Unpin(Next(), Key(1), "t", SessionId(5))
            : partition_->ReleaseSession(SessionId(5));
    const auto* refused = Only<action::Refused>(actions);
    ASSERT_NE(refused, nullptr);
    EXPECT_TRUE(absl::IsDeadlineExceeded(refused->why)) << refused->why;
    EXPECT_NE(Only<action::Pinned>(Confirmed(1)), nullptr) << "the other pin";
  }
}

TEST_F(PartitionTest, ARefusedSecondPinLeavesTheLeaseOfTheFirst) {
  Make(1, true);
  Put(1);
  Written(1);
  ASSERT_TRUE(Pin(1, 5));
  partition_->Discard(Key(1), ObjectVersion(1));
  EXPECT_FALSE(Pin(1, 5)) << "waits for the disk";
  ASSERT_NE(
      Only<action::Refused>(Confirmed(1, absl::UnavailableError("broken"))),
      nullptr);
  EXPECT_TRUE(partition_->Held(Key(1), kNow)) << "the first pin was answered";
}

TEST_F(PartitionTest, RefusedPinsLeaveTheTimeOfTheLeaseThatWasAcknowledged) {
  for (const bool had_lease : {false, true}) {
    SCOPED_TRACE(had_lease);
    Make(1, true);
    Put(1);
    Written(1);
    if (had_lease) {
      partition_->Pin(Next(), Key(1), "t", SessionId(5),
                      kNow + absl::Seconds(2));
    }
    partition_->Discard(Key(1), ObjectVersion(1));
    for (const int seconds : {3, 4}) {
      EXPECT_EQ(Only<action::Pinned>(
                    partition_->Pin(Next(), Key(1), "t", SessionId(5),
                                    kNow + absl::Seconds(seconds))),
                nullptr)
          << "waits for the disk";
    }
    Confirmed(1, absl::UnavailableError("broken"));
    EXPECT_EQ(partition_->Held(Key(1), kNow + absl::Seconds(1)), had_lease);
    EXPECT_FALSE(partition_->Held(Key(1), kNow + absl::Seconds(2)));
  }
}

TEST_F(PartitionTest, TheDiskIsAskedAgainWhenItFailsToConfirmAMemoryCopy) {
  Make(1, true);
  Put(1);
  Written(1);
  ASSERT_TRUE(Pin(1, 5));
  Confirmed(1, absl::UnavailableError("broken"));
  EXPECT_EQ(Block(2), nullptr) << "not confirmed";
  EXPECT_TRUE(partition_->OnTick(kNow).empty());
  const absl::Time second = kNow + absl::Milliseconds(500);
  ASSERT_NE(Only<action::ConfirmHold>(partition_->OnTick(second)), nullptr);
  partition_->OnDiskHeld(Key(1), absl::UnavailableError("broken"), second);
  EXPECT_TRUE(partition_->OnTick(second + absl::Milliseconds(500)).empty())
      << "the delay doubles";
  ASSERT_NE(
      Only<action::ConfirmHold>(partition_->OnTick(second + absl::Seconds(1))),
      nullptr);
  EXPECT_NE(Only<action::Granted>(Confirmed(1)), nullptr);
  EXPECT_TRUE(partition_->Held(Key(1), kNow));
}

TEST_F(PartitionTest, TheDiskIsNotAskedAgainAboutAHoldThatHasEnded) {
  Make(1, true);
  Put(1);
  Written(1);
  ASSERT_TRUE(Pin(1, 5));
  Confirmed(1, absl::UnavailableError("broken"));
  partition_->ReleaseSession(SessionId(5));
  EXPECT_EQ(
      Only<action::ConfirmHold>(partition_->OnTick(kNow + absl::Seconds(1))),
      nullptr);
}

TEST_F(PartitionTest, ARestoredTtlIsConfirmedOnceTheObjectIsInMemory) {
  Make(1, true);
  ObjectInfo info = Info(1);
  info.expires = kLater;
  const Actions restored = partition_->Restore(info, kNow);
  EXPECT_NE(Only<action::HoldChanged>(restored), nullptr);
  EXPECT_EQ(Only<action::ConfirmHold>(restored), nullptr);
  ASSERT_NE(Only<action::ReadFromDisk>(Read(1)), nullptr);
  Actions read = ReadDone(1);
  ASSERT_NE(Only<action::Found>(read), nullptr);
  ASSERT_NE(Only<action::ConfirmHold>(read), nullptr);
  partition_->OnReturned(Only<action::Found>(read)->loan, kNow);
  read.clear();
  EXPECT_EQ(Block(2), nullptr) << "not confirmed";
  EXPECT_NE(Only<action::Granted>(Confirmed(1)), nullptr);
}

TEST_F(PartitionTest, ALostHeldObjectIsReportedHoweverTheLossIsFound) {
  enum class How { kEvicted, kEvictedDuringRead, kDamaged };
  for (const How how :
       {How::kEvicted, How::kEvictedDuringRead, How::kDamaged}) {
    SCOPED_TRACE(static_cast<int>(how));
    Make(1, true);
    partition_->Restore(Info(1), kNow);
    partition_->Pin(Next(), Key(1), "t", SessionId(5), kLater);
    ASSERT_NE(Only<action::Pinned>(Confirmed(1)), nullptr);
    Actions actions;
    if (how != How::kEvicted) {
      ASSERT_NE(Only<action::ReadFromDisk>(Read(1)), nullptr);
    }
    if (how != How::kDamaged) actions = EvictedFromDisk(1);
    if (how != How::kEvicted) {
      EXPECT_TRUE(actions.empty());
      actions =
          ReadDone(1, how == How::kDamaged ? absl::DataLossError("damaged")
                                           : absl::NotFoundError("evicted"));
    }
    ASSERT_NE(Only<action::HeldLost>(actions), nullptr);
    EXPECT_FALSE(Only<action::HoldChanged>(actions)->held);
    EXPECT_NE(Only<action::Missed>(Read(1)), nullptr);
  }
}

TEST_F(PartitionTest, AHeldObjectThatARunningReadSavesIsNotLost) {
  Make(1, true);
  partition_->Restore(Info(1), kNow);
  partition_->Pin(Next(), Key(1), "t", SessionId(5), kLater);
  ASSERT_NE(Only<action::ReadFromDisk>(Read(1)), nullptr);
  EXPECT_TRUE(EvictedFromDisk(1).empty());
  const Actions actions = ReadDone(1);
  EXPECT_NE(Only<action::Pinned>(actions), nullptr);
  EXPECT_NE(Only<action::WriteToDisk>(actions), nullptr);
  EXPECT_TRUE(Confirmed(1, absl::NotFoundError("evicted")).empty());
}

}  // namespace
}  // namespace kdn::storage
