// The TTL and the durability class of an object: what the disk learns of them,
// and what a refused commit leaves of them.
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "storage/partition.h"
#include "tests/storage/partition_fixture.h"

namespace kdn::storage {
namespace {

const absl::Time kSooner = kNow + absl::Seconds(2);

// The status of the commit or pin that ends; null when none does.
const absl::Status* Refusal(const Actions& actions) {
  const auto* refused = Only<action::Refused>(actions);
  return refused == nullptr ? nullptr : &refused->why;
}

class PartitionTermsTest : public PartitionTest {
 protected:
  Actions Amended(uint8_t i, const absl::Status& status = absl::OkStatus(),
                  absl::Time now = kNow) {
    return partition_->OnDiskAmended(Key(i), status, now);
  }
  // The object is in memory and synced on disk, without a TTL.
  void PutDurable(uint8_t i) {
    Put(i, Durability::kDurable);
    ASSERT_NE(Only<action::Committed>(Written(i)), nullptr);
  }
};

TEST_F(PartitionTermsTest, TheDiskLearnsOfALaterTtlOnce) {
  Make(2, true);
  Put(1);
  Written(1);
  const Actions put = Put(1, Durability::kReplicated, kLater);
  EXPECT_NE(Only<action::Committed>(put), nullptr);
  const auto* amend = Only<action::AmendOnDisk>(put);
  ASSERT_NE(amend, nullptr) << "a restart would forget the TTL";
  EXPECT_EQ(amend->info.key, Key(1));
  EXPECT_EQ(amend->info.version, ObjectVersion(1));
  EXPECT_EQ(amend->info.expires, kLater);
  EXPECT_FALSE(amend->sync);
  EXPECT_TRUE(partition_->HasUnwritten());
  EXPECT_TRUE(Amended(1).empty());
  EXPECT_FALSE(partition_->HasUnwritten());
  for (const absl::Time expires : {kLater, kSooner, absl::InfinitePast()}) {
    EXPECT_EQ(
        Only<action::AmendOnDisk>(Put(1, Durability::kReplicated, expires)),
        nullptr);
  }
}

TEST_F(PartitionTermsTest, ARestoredTtlIsKnownToTheDisk) {
  Make(2, true);
  ObjectInfo stored = Info(1);
  stored.expires = kLater;
  partition_->Restore(stored, kNow);
  EXPECT_EQ(Only<action::AmendOnDisk>(Put(1, Durability::kReplicated, kLater)),
            nullptr);
  EXPECT_NE(Only<action::AmendOnDisk>(
                Put(1, Durability::kReplicated, kLater + absl::Seconds(1))),
            nullptr);
}

TEST_F(PartitionTermsTest, AWriteThatHasNotBegunBringsTheLaterTtl) {
  Make(3, true);
  Partition::Options options;
  options.disk_writes_max = 1;
  partition_ = std::make_unique<Partition>(options, arena_);
  Put(2);
  Put(1);  // waits for the write of 2
  EXPECT_EQ(Only<action::AmendOnDisk>(Put(1, Durability::kReplicated, kLater)),
            nullptr);
  const Actions actions = Written(2);
  ASSERT_NE(Only<action::WriteToDisk>(actions), nullptr);
  EXPECT_EQ(Only<action::WriteToDisk>(actions)->info.expires, kLater);
  EXPECT_EQ(Only<action::AmendOnDisk>(Written(1)), nullptr);
}

TEST_F(PartitionTermsTest, AWriteInFlightIsAmendedWhenItIsDone) {
  Make(3, true);
  Put(1);
  EXPECT_EQ(Only<action::AmendOnDisk>(Put(1, Durability::kReplicated, kLater)),
            nullptr)
      << "the disk may have no object to amend yet";
  const Actions actions = Written(1);
  ASSERT_NE(Only<action::AmendOnDisk>(actions), nullptr);
  EXPECT_EQ(Only<action::AmendOnDisk>(actions)->info.expires, kLater);
}

TEST_F(PartitionTermsTest, ADurableCommitWaitsUntilTheDiskHasItsTtl) {
  Make(2, true);
  PutDurable(1);
  const Actions put = Put(1, Durability::kDurable, kLater);
  EXPECT_EQ(Only<action::Committed>(put), nullptr);
  EXPECT_EQ(Only<action::WriteToDisk>(put), nullptr) << "the bytes are synced";
  ASSERT_NE(Only<action::AmendOnDisk>(put), nullptr);
  EXPECT_TRUE(Only<action::AmendOnDisk>(put)->sync);
  EXPECT_TRUE(partition_->Held(Key(1), kNow));
  const Actions amended = Amended(1);
  ASSERT_NE(Only<action::Committed>(amended), nullptr);
  EXPECT_TRUE(Only<action::Committed>(amended)->existed);
  EXPECT_NE(Only<action::Committed>(Put(1, Durability::kDurable, kSooner)),
            nullptr)
      << "the disk has a later TTL already";
}

TEST_F(PartitionTermsTest, ADurableCommitSyncsTheTtlOfAnotherCommit) {
  Make(2, true);
  Put(1);
  Written(1);
  Put(1, Durability::kReplicated, kLater);
  Amended(1);
  // The object is not synced either: one write brings both.
  Put(1, Durability::kDurable, kLater);
  EXPECT_NE(Only<action::Committed>(Written(1)), nullptr);
  Make(2, true);
  partition_->Restore(Info(1), kNow);  // synced
  Put(1, Durability::kReplicated, kLater);
  Amended(1);
  const Actions put = Put(1, Durability::kDurable, kSooner);
  EXPECT_EQ(Only<action::Committed>(put), nullptr);
  ASSERT_NE(Only<action::AmendOnDisk>(put), nullptr);
  EXPECT_TRUE(Only<action::AmendOnDisk>(put)->sync);
  EXPECT_EQ(Only<action::AmendOnDisk>(put)->info.expires, kLater);
  EXPECT_NE(Only<action::Committed>(Amended(1)), nullptr);
}

TEST_F(PartitionTermsTest,
       ALaterTtlDuringADurableWriteIsAmendedBeforeItsAnswer) {
  Make(3, true);
  Put(1, Durability::kDurable);
  EXPECT_TRUE(Put(1, Durability::kDurable, kLater).size() <= 1u)
      << "HoldChanged at most";
  const Actions written = Written(1);
  ASSERT_NE(Only<action::Committed>(written), nullptr) << "the first commit";
  ASSERT_NE(Only<action::AmendOnDisk>(written), nullptr);
  EXPECT_NE(Only<action::Committed>(Amended(1)), nullptr) << "the second one";
}

TEST_F(PartitionTermsTest, ADurableTtlOfAnotherVersionOnDiskWaitsForBoth) {
  Make(1, true);
  partition_->Restore(Info(1, /*version=*/2), kNow);
  const Actions put = Put(1, Durability::kDurable, kLater);
  ASSERT_NE(Only<action::ConfirmHold>(put), nullptr);
  EXPECT_EQ(Only<action::AmendOnDisk>(put), nullptr);
  const Actions confirmed = Confirmed(1);
  EXPECT_EQ(Only<action::Committed>(confirmed), nullptr);
  const auto* amend = Only<action::AmendOnDisk>(confirmed);
  ASSERT_NE(amend, nullptr);
  EXPECT_EQ(amend->info.version, ObjectVersion(2));
  EXPECT_EQ(amend->info.expires, kLater);
  EXPECT_TRUE(amend->sync);
  EXPECT_NE(Only<action::Committed>(Amended(1)), nullptr);
  EXPECT_TRUE(partition_->Held(Key(1), kNow));
}

TEST_F(PartitionTermsTest, AnAmendmentThatFailsIsRepeatedAtGrowingIntervals) {
  Make(2, true);
  Put(1);
  Written(1);
  Put(1, Durability::kReplicated, kLater);
  absl::Time now = kNow;
  for (const int delay_ms : {500, 1000, 2000}) {
    Amended(1, absl::UnavailableError("broken"), now);
    EXPECT_FALSE(partition_->HasUnwritten());
    now += absl::Milliseconds(delay_ms - 1);
    EXPECT_EQ(Only<action::AmendOnDisk>(partition_->OnTick(now)), nullptr);
    now += absl::Milliseconds(1);
    const Actions again = partition_->OnTick(now);
    ASSERT_NE(Only<action::AmendOnDisk>(again), nullptr);
    EXPECT_EQ(Only<action::AmendOnDisk>(again)->info.expires, kLater);
  }
  Amended(1, absl::UnavailableError("broken"), now);
  EXPECT_NE(Only<action::AmendOnDisk>(partition_->Flush(now)), nullptr)
      << "the node stops";
  EXPECT_TRUE(Amended(1, absl::OkStatus(), now).empty());
  EXPECT_TRUE(partition_->Flush(now).empty());
}

TEST_F(PartitionTermsTest, ARefusedDurableTtlIsTakenBackOnDiskToo) {
  Make(2, true);
  PutDurable(1);
  Put(1, Durability::kDurable, kSooner);
  ASSERT_NE(Only<action::Committed>(Amended(1)), nullptr);
  Put(1, Durability::kDurable, kLater);
  const Actions failed = Amended(1, absl::UnavailableError("broken"));
  ASSERT_NE(Refusal(failed), nullptr);
  EXPECT_TRUE(absl::IsUnavailable(*Refusal(failed)));
  EXPECT_TRUE(partition_->Held(Key(1), kNow + absl::Seconds(1)));
  EXPECT_FALSE(partition_->Held(Key(1), kNow + absl::Seconds(3)));
  // The disk may have put the TTL into its index all the same.
  const Actions again = partition_->OnTick(kNow + absl::Milliseconds(500));
  ASSERT_NE(Only<action::AmendOnDisk>(again), nullptr);
  EXPECT_EQ(Only<action::AmendOnDisk>(again)->info.expires, kSooner);
}

TEST_F(PartitionTermsTest, ADurableCommitDoesNotWaitForTheTimeOfTheNextTry) {
  Make(2, true);
  PutDurable(1);
  Put(1, Durability::kDurable, kSooner);
  ASSERT_NE(Refusal(Amended(1, absl::UnavailableError("broken"))), nullptr);
  EXPECT_NE(Only<action::AmendOnDisk>(Put(1, Durability::kDurable, kSooner)),
            nullptr);
  EXPECT_NE(Only<action::Committed>(Amended(1)), nullptr);
  EXPECT_EQ(
      Only<action::AmendOnDisk>(partition_->OnTick(kNow + absl::Hours(1))),
      nullptr);
}

TEST_F(PartitionTermsTest,
       AnObjectEvictedBeforeItsAmendmentIsWrittenWithItsTtl) {
  Make(2, true);
  PutDurable(1);
  ASSERT_NE(Only<action::AmendOnDisk>(Put(1, Durability::kDurable, kLater)),
            nullptr);
  const Actions gone = Amended(1, absl::NotFoundError("evicted"));
  const auto* write = Only<action::WriteToDisk>(gone);
  ASSERT_NE(write, nullptr);
  EXPECT_EQ(write->info.expires, kLater);
  EXPECT_TRUE(write->sync);
  EXPECT_EQ(Only<action::Committed>(gone), nullptr);
  EXPECT_NE(Only<action::Committed>(Written(1)), nullptr);
}

TEST_F(PartitionTermsTest, ACommitThatOutlastsItsTtlIsWrittenWhenItIsEvicted) {
  Make(2, true);
  PutDurable(1);
  ASSERT_NE(Only<action::AmendOnDisk>(Put(1, Durability::kDurable, kSooner)),
            nullptr);
  partition_->OnTick(kSooner);
  EXPECT_FALSE(partition_->Held(Key(1), kSooner));
  const Actions gone = Amended(1, absl::NotFoundError("evicted"), kSooner);
  EXPECT_NE(Only<action::WriteToDisk>(gone), nullptr);
  EXPECT_NE(Only<action::Committed>(Written(1, absl::OkStatus(), kSooner)),
            nullptr);
}

TEST_F(PartitionTermsTest, ADurableTtlOfAnObjectThatTheDiskHasLostIsRefused) {
  Make(1, true);
  partition_->Restore(Info(1, /*version=*/2), kNow);
  Put(1, Durability::kDurable, kLater);
  ASSERT_NE(Only<action::AmendOnDisk>(Confirmed(1)), nullptr);
  const Actions gone = Amended(1, absl::NotFoundError("damaged"));
  ASSERT_NE(Refusal(gone), nullptr);
  EXPECT_TRUE(absl::IsUnavailable(*Refusal(gone))) << *Refusal(gone);
  EXPECT_EQ(Only<action::HeldLost>(gone), nullptr) << "not acknowledged";
  EXPECT_FALSE(partition_->Held(Key(1), kNow));
  EXPECT_NE(Only<action::Missed>(Read(1)), nullptr);
}

TEST_F(PartitionTermsTest, TheAnswerAboutARemovedObjectDoesNotCount) {
  Make(3, true);
  Put(1);
  Written(1);
  ASSERT_NE(Only<action::AmendOnDisk>(Put(1, Durability::kReplicated, kLater)),
            nullptr);
  partition_->Remove(Next(), Key(1), "t", SessionId(5));
  partition_->OnDiskRemoved(Key(1), absl::OkStatus());
  PutDurable(1);
  ASSERT_NE(Only<action::AmendOnDisk>(Put(1, Durability::kDurable, kLater)),
            nullptr);
  EXPECT_TRUE(Amended(1, absl::NotFoundError("removed")).empty());
  EXPECT_NE(Only<action::Committed>(Amended(1)), nullptr);
}

TEST_F(PartitionTermsTest, TheDiskLearnsOfAStricterDurabilityClass) {
  Make(1, true);
  partition_->Restore(Info(1), kNow);  // replicated, and synced
  const Actions put = Put(1, Durability::kDurable);
  EXPECT_NE(Only<action::Committed>(put), nullptr) << "the object is synced";
  const auto* amend = Only<action::AmendOnDisk>(put);
  ASSERT_NE(amend, nullptr) << "after a restart, rewrites would not sync";
  EXPECT_EQ(amend->info.durability, Durability::kDurable);
  EXPECT_TRUE(Amended(1).empty());
  EXPECT_EQ(Only<action::AmendOnDisk>(Put(1, Durability::kReplicated)),
            nullptr);
}

TEST_F(PartitionTermsTest, ANewVersionOfAnEvictedObjectKeepsItsTerms) {
  Make(3, true);
  ObjectInfo stored = Info(1);
  stored.expires = kSooner;
  stored.durability = Durability::kDurable;
  partition_->Restore(stored, kNow);
  auto block = Block(7);
  ASSERT_NE(Only<action::ReadFromDisk>(Read(1)), nullptr);
  EvictedFromDisk(1);
  const Actions put = partition_->Commit(
      Next(), Info(1, /*version=*/2), std::move(block), Durability::kReplicated,
      absl::InfinitePast(), kLater, kNow);
  const auto* write = Only<action::WriteToDisk>(put);
  ASSERT_NE(write, nullptr);
  EXPECT_EQ(write->info.expires, kSooner);
  EXPECT_EQ(write->info.durability, Durability::kDurable);
  EXPECT_TRUE(write->sync);
  partition_->OnDiskRead(Key(1), absl::NotFoundError("evicted"), kNow);
}

TEST_F(PartitionTermsTest, ThePartitionBoundsItsAmendments) {
  Make(1, true);
  for (uint8_t i = 1; i <= 40; ++i) {
    partition_->Restore(Info(i), kNow);
    partition_->Pin(Next(), Key(i), "t", SessionId(5), kLater);
    Confirmed(i);
  }
  std::vector<ChunkKey> amending;
  const auto count = [&](const Actions& actions) {
    const auto* amend = Only<action::AmendOnDisk>(actions);
    if (amend != nullptr) amending.push_back(amend->info.key);
  };
  for (uint8_t i = 1; i <= 40; ++i) {
    count(Put(i, Durability::kReplicated, kLater));
  }
  EXPECT_EQ(amending.size(), 8u);
  for (size_t i = 0; i < 40; ++i) {
    ASSERT_LT(i, amending.size());
    count(partition_->OnDiskAmended(amending[i], absl::OkStatus(), kNow));
  }
  EXPECT_EQ(amending.size(), 40u);
  EXPECT_FALSE(partition_->HasUnwritten());
}

// --- Refused commits

TEST_F(PartitionTermsTest, ADurableCommitThatTheDiskRefusesLeavesNoTtl) {
  for (const absl::Time acknowledged : {absl::InfinitePast(), kSooner}) {
    SCOPED_TRACE(acknowledged);
    Make(4, true);
    Put(1, Durability::kReplicated, acknowledged);
    Put(1, Durability::kDurable, kLater);
    Written(1);  // of the first commit: not synced
    const Actions failed = Written(1, absl::ResourceExhaustedError("full"));
    ASSERT_NE(Refusal(failed), nullptr);
    EXPECT_EQ(partition_->Held(Key(1), kNow), acknowledged == kSooner);
    EXPECT_FALSE(partition_->Held(Key(1), kSooner));
    EXPECT_EQ(partition_->Find(Key(1))->expires, acknowledged);
    EXPECT_EQ(partition_->Find(Key(1))->durability, Durability::kReplicated);
    const Actions again = partition_->OnTick(kNow + absl::Seconds(1));
    ASSERT_NE(Only<action::WriteToDisk>(again), nullptr);
    EXPECT_EQ(Only<action::WriteToDisk>(again)->info.expires, acknowledged);
    EXPECT_FALSE(Only<action::WriteToDisk>(again)->sync);
  }
}

TEST_F(PartitionTermsTest, ADurableCommitThatIsRefusedLeavesTheTtlOfAnother) {
  Make(4, true);
  Put(1);
  Put(1, Durability::kDurable, kLater);
  ASSERT_NE(Only<action::Committed>(Put(1, Durability::kReplicated, kSooner)),
            nullptr);
  Written(1);
  ASSERT_NE(Refusal(Written(1, absl::ResourceExhaustedError("full"))), nullptr);
  EXPECT_TRUE(partition_->Held(Key(1), kNow + absl::Seconds(1)));
  EXPECT_FALSE(partition_->Held(Key(1), kSooner));
}

TEST_F(PartitionTermsTest, ATtlWhoseCommitWasRefusedLateIsTakenBackOnDisk) {
  Make(3, true);
  Put(1);
  Written(1);
  const absl::Time expires = kLater + absl::Seconds(5);
  const Actions put = Put(1, Durability::kDurable, expires);
  ASSERT_NE(Only<action::WriteToDisk>(put), nullptr);
  EXPECT_EQ(Only<action::WriteToDisk>(put)->info.expires, expires);
  const Actions late = partition_->OnTick(kLater);  // the commit's deadline
  ASSERT_NE(Refusal(late), nullptr);
  EXPECT_TRUE(absl::IsDeadlineExceeded(*Refusal(late)));
  EXPECT_FALSE(partition_->Held(Key(1), kLater));
  const Actions written = Written(1, absl::OkStatus(), kLater);
  const auto* amend = Only<action::AmendOnDisk>(written);
  ASSERT_NE(amend, nullptr) << "the record has the refused TTL";
  EXPECT_EQ(amend->info.expires, absl::InfinitePast());
}

TEST_F(PartitionTermsTest, AFailedWriteThatMayHaveLeftItsTtlIsTakenBack) {
  Make(3, true);
  Put(1);
  Written(1);
  Put(1, Durability::kDurable, kLater);
  // The record replaced the record before, and then its sync failed.
  const Actions failed = Written(1, absl::UnavailableError("no sync"));
  ASSERT_NE(Refusal(failed), nullptr);
  const auto* amend = Only<action::AmendOnDisk>(failed);
  ASSERT_NE(amend, nullptr);
  EXPECT_EQ(amend->info.expires, absl::InfinitePast());
  EXPECT_EQ(amend->info.durability, Durability::kReplicated);
}

}  // namespace
}  // namespace kdn::storage
