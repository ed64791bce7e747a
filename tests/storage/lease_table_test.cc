#include "storage/lease_table.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <vector>

namespace kdn::storage {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(1000);
const SessionId kOne(1);
const SessionId kTwo(2);

ChunkKey Key(uint8_t i) {
  std::array<uint8_t, 32> bytes{};
  bytes[0] = i;
  return ChunkKey(bytes);
}

TEST(LeaseTableTest, EndsWithItsTime) {
  LeaseTable table(10);
  ASSERT_TRUE(table.Acquire(Key(1), kOne, kNow + absl::Seconds(5)).ok());
  EXPECT_TRUE(table.Held(Key(1), kNow));
  EXPECT_FALSE(table.Held(Key(1), kNow + absl::Seconds(5)));
  table.Expire(kNow + absl::Seconds(5));
  EXPECT_EQ(table.size(), 0);
}

TEST(LeaseTableTest, EndsWithItsSessionAndWithNoOther) {
  LeaseTable table(10);
  ASSERT_TRUE(table.Acquire(Key(1), kOne, kNow + absl::Seconds(5)).ok());
  ASSERT_TRUE(table.Acquire(Key(1), kTwo, kNow + absl::Seconds(5)).ok());
  EXPECT_TRUE(table.HeldByOther(Key(1), kOne));
  table.ReleaseSession(kOne);
  EXPECT_TRUE(table.Held(Key(1), kNow));
  EXPECT_FALSE(table.HeldByOther(Key(1), kTwo));
  EXPECT_TRUE(absl::IsNotFound(table.Release(Key(1), kOne)));
  EXPECT_TRUE(table.Release(Key(1), kTwo).ok());
  EXPECT_FALSE(table.Held(Key(1), kNow));
}

TEST(LeaseTableTest, ManyLeasesEndAFewAtATime) {
  constexpr int kMost = LeaseTable::kEndsACall;
  const auto key_of = [](int i) {
    return ChunkKey(DigestBuilder("lease").Add(uint64_t(i)).Finish());
  };
  for (const bool by_session : {true, false}) {
    SCOPED_TRACE(by_session);
    LeaseTable table(3 * kMost);
    const absl::Time end = kNow + absl::Seconds(1);
    for (int i = 0; i < 2 * kMost + 1; ++i) {
      ASSERT_TRUE(table.Acquire(key_of(i), kOne, end).ok());
    }
    ASSERT_TRUE(table.Acquire(Key(1), kTwo, kNow + absl::Hours(1)).ok());
    table.TakeChanges();
    const absl::Time now = by_session ? kNow : end;
    if (by_session) {
      table.ReleaseSession(kOne);
      EXPECT_TRUE(absl::IsCancelled(table.Acquire(Key(2), kOne, end)));
    } else {
      table.Expire(now);
    }
    for (const size_t ends : {kMost, kMost, 1, 0}) {
      EXPECT_EQ(table.TakeEnds().size(), ends);
      EXPECT_EQ(table.TakeChanges().size(), ends);
      table.CheckInvariants();
      for (int i = 0; i < 2 * kMost + 1; ++i) {
        ASSERT_FALSE(table.Held(key_of(i), now));
        if (!by_session) continue;
        ASSERT_FALSE(table.Has(key_of(i), kOne));
        ASSERT_FALSE(table.HeldByOther(key_of(i), kTwo));
      }
      table.Expire(now);
    }
    EXPECT_EQ(table.size(), 1);
    EXPECT_TRUE(table.Held(Key(1), now));
  }
}

TEST(LeaseTableTest, AcquiringAgainExtends) {
  LeaseTable table(1);
  ASSERT_TRUE(table.Acquire(Key(1), kOne, kNow + absl::Seconds(1)).ok());
  ASSERT_TRUE(table.Acquire(Key(1), kOne, kNow + absl::Seconds(9)).ok());
  EXPECT_EQ(table.size(), 1);
  EXPECT_TRUE(table.Held(Key(1), kNow + absl::Seconds(5)));
}

TEST(LeaseTableTest, IsBounded) {
  LeaseTable table(2);
  EXPECT_TRUE(table.Acquire(Key(1), kOne, kNow).ok());
  EXPECT_TRUE(table.Acquire(Key(2), kOne, kNow).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(table.Acquire(Key(3), kOne, kNow)));
}

TEST(LeaseTableTest, ATimeToLiveHoldsItsChunkAndIsNoLease) {
  LeaseTable table(0);
  table.HoldUntil(Key(1), kNow + absl::Seconds(5));
  table.HoldUntil(Key(1), kNow + absl::Seconds(2));  // the later one counts
  table.HoldUntil(Key(2), absl::InfinitePast());
  EXPECT_TRUE(table.Held(Key(1), kNow + absl::Seconds(4)));
  EXPECT_FALSE(table.Held(Key(2), kNow));
  EXPECT_FALSE(table.HeldByOther(Key(1), kOne));
  EXPECT_EQ(table.size(), 0);
  table.Expire(kNow + absl::Seconds(2));
  EXPECT_TRUE(table.Held(Key(1), kNow + absl::Seconds(2)));
  table.Expire(kNow + absl::Seconds(5));
  EXPECT_FALSE(table.Held(Key(1), kNow));
  table.CheckInvariants();
}

TEST(LeaseTableTest, ATimeToLiveCanBeSetBack) {
  LeaseTable table(1);
  table.CutTtl(Key(1), kNow);
  table.HoldUntil(Key(1), kNow + absl::Seconds(9));
  table.CutTtl(Key(1), kNow + absl::Seconds(20));
  EXPECT_TRUE(table.Held(Key(1), kNow + absl::Seconds(8)));
  table.CutTtl(Key(1), kNow + absl::Seconds(5));
  table.CheckInvariants();
  EXPECT_TRUE(table.Held(Key(1), kNow + absl::Seconds(4)));
  EXPECT_FALSE(table.Held(Key(1), kNow + absl::Seconds(5)));
  table.CutTtl(Key(1), absl::InfinitePast());
  table.CheckInvariants();
  EXPECT_FALSE(table.Held(Key(1), kNow));
}

TEST(LeaseTableTest, TellsOfTheFirstHoldAndOfTheLast) {
  using Changes = std::vector<HoldChange>;
  LeaseTable table(10);
  ASSERT_TRUE(table.Acquire(Key(1), kOne, kNow + absl::Seconds(5)).ok());
  EXPECT_EQ(table.TakeChanges(), Changes({{Key(1), true}}));
  ASSERT_TRUE(table.Acquire(Key(1), kOne, kNow + absl::Seconds(7)).ok());
  ASSERT_TRUE(table.Acquire(Key(1), kTwo, kNow + absl::Seconds(6)).ok());
  table.HoldUntil(Key(1), kNow + absl::Seconds(9));
  table.ReleaseSession(kOne);
  table.Expire(kNow + absl::Seconds(6));
  EXPECT_EQ(table.TakeChanges(), Changes());
  table.Expire(kNow + absl::Seconds(9));
  EXPECT_EQ(table.TakeChanges(), Changes({{Key(1), false}}));
  table.HoldUntil(Key(2), kNow + absl::Seconds(9));
  ASSERT_TRUE(table.Acquire(Key(2), kTwo, kNow + absl::Seconds(9)).ok());
  table.Forget(Key(2));
  EXPECT_EQ(table.TakeChanges(), Changes({{Key(2), true}, {Key(2), false}}));
  table.Forget(Key(2));
  EXPECT_EQ(table.TakeChanges(), Changes());
}

TEST(LeaseTableTest, TellsOfEachEnd) {
  using Ends = std::vector<HoldEnd>;
  LeaseTable table(10);
  ASSERT_TRUE(table.Acquire(Key(1), kOne, kNow + absl::Seconds(5)).ok());
  ASSERT_TRUE(table.Acquire(Key(1), kTwo, kNow + absl::Seconds(6)).ok());
  table.HoldUntil(Key(1), kNow + absl::Seconds(7));
  EXPECT_EQ(table.TakeEnds(), Ends());
  ASSERT_TRUE(table.Release(Key(1), kOne).ok());
  EXPECT_FALSE(table.Has(Key(1), kOne));
  EXPECT_TRUE(table.Has(Key(1), kTwo));
  EXPECT_TRUE(table.Has(Key(1), std::nullopt));
  EXPECT_EQ(table.TakeEnds(), Ends({{Key(1), kOne}}));
  table.Expire(kNow + absl::Seconds(7));
  EXPECT_FALSE(table.Has(Key(1), std::nullopt));
  EXPECT_EQ(table.TakeEnds(), Ends({{Key(1), kTwo}, {Key(1), std::nullopt}}));
}

TEST(LeaseTableTest, KeepsItsInvariantsUnderRandomUse) {
  std::mt19937 random(11);
  LeaseTable table(40);
  std::set<ChunkKey> held;  // as the changes tell
  for (int step = 0; step < 5000; ++step) {
    const ChunkKey key = Key(static_cast<uint8_t>(random() % 20));
    const SessionId session(random() % 5);
    const absl::Time at = kNow + absl::Seconds(step / 10);
    switch (random() % 5) {
      case 0:
      case 1:
        table.Acquire(key, session, at + absl::Seconds(random() % 50))
            .IgnoreError();
        break;
      case 2:
        table.Release(key, session).IgnoreError();
        break;
      case 3:
        if (random() % 10 == 0) table.ReleaseSession(session);
        if (random() % 10 == 0) table.Forget(key);
        table.HoldUntil(key, at + absl::Seconds(random() % 50));
        break;
      default:
        break;
    }
    table.Expire(at);
    table.CheckInvariants();
    for (const HoldChange& change : table.TakeChanges()) {
      EXPECT_EQ(held.contains(change.key), !change.held);
      change.held ? (void)held.insert(change.key)
                  : (void)held.erase(change.key);
    }
    for (uint8_t i = 0; i < 20; ++i) {
      ASSERT_EQ(table.Held(Key(i), at), held.contains(Key(i)));
    }
  }
}

}  // namespace
}  // namespace kdn::storage
