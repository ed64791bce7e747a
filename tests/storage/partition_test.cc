// A partition without a disk: commits, reads, reservations, loans.
#include "storage/partition.h"

#include <gtest/gtest.h>

#include "tests/storage/partition_fixture.h"

namespace kdn::storage {
namespace {

TEST_F(PartitionTest, AReadGivesTheBytesThatWereCommitted) {
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

TEST_F(PartitionTest, WithoutADiskTheColdestObjectIsEvictedAndCounted) {
  Make(2, false);
  Put(1);
  Put(2);
  Read(1);
  Put(3);
  EXPECT_NE(Only<action::Missed>(Read(2)), nullptr);
  EXPECT_NE(Only<action::Found>(Read(1)), nullptr);
  EXPECT_EQ(partition_->counters()["evictions_lost"], 1u);
}

TEST_F(PartitionTest, AReservationThatWaitsTooLongIsRefused) {
  Make(1, false);
  Put(1);
  ASSERT_TRUE(Pin(1, 5));
  partition_->Reserve(Next(), kObject, kNow + absl::Seconds(1), kNow);
  const Actions actions = partition_->OnTick(kNow + absl::Seconds(2));
  const auto* refused = Only<action::Refused>(actions);
  ASSERT_NE(refused, nullptr);
  EXPECT_TRUE(absl::IsResourceExhausted(refused->why)) << refused->why;
}

TEST_F(PartitionTest, AWithdrawnReservationMakesWayForTheNext) {
  Make(2, true);
  const auto block = Block(1);
  const RequestId large = Next();
  const RequestId small = Next();
  EXPECT_TRUE(partition_->Reserve(large, 2 * kObject, kLater, kNow).empty());
  EXPECT_TRUE(partition_->Reserve(small, kObject, kLater, kNow).empty());
  const Actions actions = partition_->Withdraw(large, kNow);
  ASSERT_NE(Only<action::Refused>(actions), nullptr);
  EXPECT_EQ(Only<action::Refused>(actions)->id, large);
  EXPECT_TRUE(absl::IsCancelled(Only<action::Refused>(actions)->why));
  ASSERT_NE(Only<action::Granted>(actions), nullptr);
  EXPECT_EQ(Only<action::Granted>(actions)->id, small);
  EXPECT_TRUE(partition_->Withdraw(small, kNow).empty()) << "already granted";
}

TEST_F(PartitionTest, DurableWithoutADiskIsRefused) {
  Make(2, false);
  const auto* refused = Only<action::Refused>(Put(1, Durability::kDurable));
  EXPECT_NE(refused, nullptr);
}

TEST_F(PartitionTest, ARequestBeyondTheLimitIsRefusedAtOnce) {
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

TEST_F(PartitionTest, ADamagedVersionIsDiscardedAndOnlyThatVersion) {
  Make(2, false);
  Put(1);
  partition_->Discard(Key(1), ObjectVersion(7));
  EXPECT_NE(Only<action::Found>(Read(1)), nullptr);
  partition_->Discard(Key(1), ObjectVersion(1));
  EXPECT_NE(Only<action::Missed>(Read(1)), nullptr);
  EXPECT_EQ(partition_->counters()["damaged"], 1u);
}

TEST_F(PartitionTest, AReservationLargerThanTheMemoryIsRefusedAtOnce) {
  Make(1, false);
  const Actions actions =
      partition_->Reserve(Next(), 2 * kObject, kLater, kNow);
  EXPECT_TRUE(absl::IsInvalidArgument(Only<action::Refused>(actions)->why));
}

TEST_F(PartitionTest, AnObjectOnLoanStaysUntilItIsReturned) {
  Make(2, false);
  Put(1);
  Put(2);
  Actions read = partition_->Read(Next(), Key(1), "t", kLater, kNow);
  const Loan loan = Only<action::Found>(read)->loan;
  Read(2);  // 1 is the colder one
  ASSERT_NE(Block(3), nullptr);
  EXPECT_NE(Only<action::Missed>(Read(2)), nullptr);
  EXPECT_NE(Only<action::Found>(Read(1)), nullptr);
  auto block = Block(3);
  EXPECT_EQ(Block(4), nullptr) << "waits";
  read.clear();
  EXPECT_NE(Only<action::Granted>(partition_->OnReturned(loan, kNow)), nullptr);
  EXPECT_EQ(partition_->counters()["evictions_lost"], 2u);
}

TEST_F(PartitionTest, ReturningALoanOfADroppedCopyChangesNothing) {
  Make(3, false);
  Put(1);
  const Actions old = partition_->Read(Next(), Key(1), "t", kLater, kNow);
  partition_->Remove(Next(), Key(1), "t", SessionId(1));
  Put(1);
  const Actions read = partition_->Read(Next(), Key(1), "t", kLater, kNow);
  partition_->OnReturned(Only<action::Found>(old)->loan, kNow);
  partition_->OnReturned(Only<action::Found>(read)->loan, kNow);
}

}  // namespace
}  // namespace kdn::storage
