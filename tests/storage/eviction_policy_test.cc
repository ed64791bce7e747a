#include "storage/eviction_policy.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <vector>

#include "tests/storage/plain_policies.h"
#include "tests/storage/policy_cache.h"

namespace kdn::storage {
namespace {

constexpr auto kAny = [](Slot) { return true; };
constexpr auto kNone = [](Slot) { return false; };

// A well mixed hash of a small number (splitmix64).
uint64_t HashOf(uint64_t i) {
  i = (i + 1) * 0x9e3779b97f4a7c15;
  i = (i ^ (i >> 30)) * 0xbf58476d1ce4e5b9;
  i = (i ^ (i >> 27)) * 0x94d049bb133111eb;
  return i ^ (i >> 31);
}

// Small numbers are more frequent than large ones.
uint64_t Skewed(std::mt19937& random, uint32_t objects) {
  const uint32_t most = random() % objects + 1;
  return random() % most;
}

// The tests that every policy must pass.
template <typename Policy>
class EvictionPolicyTest : public testing::Test {};
using Policies = testing::Types<LruPolicy, S3FifoPolicy>;
TYPED_TEST_SUITE(EvictionPolicyTest, Policies);

TYPED_TEST(EvictionPolicyTest, NamesEveryObjectOnceUntilItIsEmpty) {
  TypeParam policy(10);
  for (uint64_t i = 0; i < 10; ++i) policy.Insert({HashOf(i), 1});
  std::set<uint64_t> gone;
  for (;;) {
    const Slot victim = policy.Victim(kAny);
    if (victim == kNoSlot) break;
    EXPECT_TRUE(gone.insert(policy.hash(victim)).second);
    policy.Evict(victim);
    policy.CheckInvariants();
  }
  EXPECT_EQ(gone.size(), 10u);
  EXPECT_EQ(policy.size(), 0u);
}

TYPED_TEST(EvictionPolicyTest, PassesOverObjectsThatMayNotGo) {
  TypeParam policy(3);
  policy.Insert({HashOf(0), 1});
  const Slot only = policy.Insert({HashOf(1), 1});
  policy.Insert({HashOf(2), 1});
  const auto may_go = [&](Slot slot) { return slot == only; };
  EXPECT_EQ(policy.Victim(may_go), only);
  for (int i = 0; i < 3; ++i) policy.Access(only);
  EXPECT_EQ(policy.Victim(may_go), only) << "however often it was read";
  EXPECT_EQ(policy.Victim(kNone), kNoSlot);
}

TYPED_TEST(EvictionPolicyTest, AskingInVainChangesNothing) {
  for (const bool ask : {false, true}) {
    std::mt19937 random(3);
    std::vector<uint64_t> order[2];
    for (std::vector<uint64_t>& victims : order) {
      random.seed(3);
      TypeParam policy(50);
      std::vector<Slot> slots;
      for (uint64_t i = 0; i < 50; ++i) {
        slots.push_back(policy.Insert({HashOf(i), 1}));
      }
      for (int i = 0; i < 100; ++i) policy.Access(slots[random() % 50]);
      const bool asks = ask && &victims == &order[1];
      while (policy.size() > 0) {
        for (int i = 0; asks && i < 5; ++i) policy.Victim(kNone);
        const Slot victim = policy.Victim(kAny);
        victims.push_back(policy.hash(victim));
        policy.Evict(victim);
      }
    }
    EXPECT_EQ(order[0], order[1]);
  }
}

TYPED_TEST(EvictionPolicyTest, SlotsOfObjectsThatAreGoneAreUsedAgain) {
  TypeParam policy(8);
  for (uint64_t i = 0; i < 1000; ++i) {
    EXPECT_LT(policy.Insert({HashOf(i), 1}).value(), 9u);
    if (policy.size() > 8) policy.Evict(policy.Victim(kAny));
  }
}

TYPED_TEST(EvictionPolicyTest, KeepsItsInvariantsUnderRandomUse) {
  std::mt19937 random(17);
  TypeParam policy(100);
  std::set<Slot> slots;
  const auto any_slot = [&] {
    return *std::next(slots.begin(), random() % slots.size());
  };
  for (uint64_t step = 0; step < 4000; ++step) {
    const uint32_t what = random() % 8;
    if (slots.empty() || what < 3) {
      const Slot slot = policy.Insert(
          {HashOf(random() % 300), static_cast<uint32_t>(random() % 9 + 1)});
      ASSERT_TRUE(slots.insert(slot).second) << "two objects in one slot";
    } else if (what < 5) {
      policy.Access(any_slot());
    } else if (what == 5) {
      const Slot slot = any_slot();
      policy.Erase(slot);
      slots.erase(slot);
    } else {
      const Slot held = any_slot();
      const Slot victim = policy.Victim([&](Slot s) { return s != held; });
      EXPECT_EQ(victim == kNoSlot, slots.size() == 1);
      if (victim == kNoSlot) continue;
      EXPECT_NE(victim, held);
      ASSERT_EQ(slots.erase(victim), 1u);
      policy.Evict(victim);
    }
    policy.CheckInvariants();
    ASSERT_EQ(policy.size(), slots.size());
  }
}

TYPED_TEST(EvictionPolicyTest, HoldsTheSameObjectsAsItsPlainReference) {
  for (const uint32_t capacity : {1u, 2u, 7u, 20u, 100u}) {
    SCOPED_TRACE(capacity);
    std::mt19937 random(capacity);
    PolicyCache<TypeParam> cache(capacity);
    typename PlainOf<TypeParam>::Cache plain(capacity);
    for (int step = 0; step < 20000; ++step) {
      const uint64_t hash = HashOf(Skewed(random, capacity * 6));
      if (random() % 40 == 0) {
        ASSERT_EQ(cache.Remove(hash), plain.Remove(hash)) << step;
      } else {
        ASSERT_EQ(cache.Request(hash), plain.Request(hash)) << step;
      }
      if (step % 512 == 0) cache.CheckInvariants();
    }
    for (const uint64_t hash : plain.objects()) EXPECT_TRUE(cache.Has(hash));
    EXPECT_EQ(cache.size(), plain.objects().size());
  }
}

// Counts the nodes and ghosts of the policy when it has the most ghosts, and
// the owner's table from hash to slot. Does not count other data of the owner.
TYPED_TEST(EvictionPolicyTest, TakesAtMost48BytesForAnObject) {
  for (const uint32_t capacity : {1000u, 40000u}) {
    std::mt19937 random(5);
    PolicyCache<TypeParam> cache(capacity);
    for (uint64_t i = 0; i < 8u * capacity; ++i) {
      cache.Request(HashOf(i % 3 == 0 ? Skewed(random, capacity) : i));
    }
    ASSERT_EQ(cache.size(), capacity);
    EXPECT_LE(cache.MemoryBytes(), 48u * capacity);
  }
}

TEST(LruPolicyTest, LetsTheLeastRecentlyUsedGo) {
  LruPolicy policy(3);
  std::vector<Slot> slots;
  for (uint64_t i = 0; i < 3; ++i) slots.push_back(policy.Insert({i, 1}));
  policy.Access(slots[0]);
  EXPECT_EQ(policy.Victim(kAny), slots[1]);
  policy.Evict(slots[1]);
  EXPECT_EQ(policy.Victim(kAny), slots[2]);
}

TEST(LruPolicyTest, MarksObjectsInTheOrderInWhichTheyGo) {
  std::mt19937 random(13);
  LruPolicy policy(100);
  std::vector<Slot> order;  // the first `marked` ones are marked
  size_t marked = 0;
  for (uint64_t step = 0; step < 20000; ++step) {
    const uint32_t what = random() % 6;
    if (what == 0 || order.empty()) {
      order.push_back(policy.Insert({HashOf(step), 1}));
    } else if (what < 3) {
      const Slot next = policy.MarkNext();
      ASSERT_EQ(next, marked < order.size() ? order[marked] : kNoSlot);
      marked += next == kNoSlot ? 0 : 1;
    } else {
      const size_t at = random() % order.size();
      const Slot slot = order[at];
      marked -= at < marked ? 1 : 0;
      order.erase(order.begin() + static_cast<std::ptrdiff_t>(at));
      if (what == 3) {
        policy.Erase(slot);
      } else {
        policy.Access(slot);
        order.push_back(slot);
      }
    }
  }
}

TEST(S3FifoPolicyTest, AnObjectReadTwiceStaysAndAnObjectReadOnceGoes) {
  S3FifoPolicy policy(10);
  std::vector<Slot> slots;
  for (uint64_t i = 0; i < 10; ++i) {
    slots.push_back(policy.Insert({HashOf(i), 1}));
  }
  policy.Access(slots[0]);
  policy.Access(slots[0]);
  policy.Access(slots[1]);
  EXPECT_EQ(policy.Victim(kAny), slots[1]) << "once is not enough";
  policy.Evict(slots[1]);
  for (uint64_t i = 10; i < 18; ++i) {
    policy.Insert({HashOf(i), 1});
    policy.Evict(policy.Victim(kAny));
  }
  EXPECT_EQ(policy.hash(slots[0]), HashOf(0)) << "still there";
}

TEST(S3FifoPolicyTest, AGhostComesBackIntoTheMainQueueOnce) {
  S3FifoPolicy policy(10);
  const Slot first = policy.Insert({HashOf(1), 1});
  policy.Evict(first);
  EXPECT_EQ(policy.ghosts(), 1u);
  policy.Insert({HashOf(1), 1});
  EXPECT_EQ(policy.ghosts(), 0u);
  const Slot other = policy.Insert({HashOf(2), 1});
  EXPECT_EQ(policy.Victim(kAny), other) << "the small queue goes first";
}

TEST(S3FifoPolicyTest, AnErasedObjectLeavesNoGhost) {
  S3FifoPolicy policy(10);
  policy.Erase(policy.Insert({HashOf(1), 1}));
  EXPECT_EQ(policy.ghosts(), 0u);
}

TEST(S3FifoPolicyTest, HeavyObjectsLeaveFewerGhosts) {
  S3FifoPolicy policy(1000);
  for (uint64_t i = 0; i < 100; ++i) {
    policy.Insert({HashOf(i), 100});
    if (policy.size() > 10) policy.Evict(policy.Victim(kAny));
  }
  EXPECT_EQ(policy.ghosts(), 9u);
}

TEST(GhostQueueTest, RemembersTheLastAndForgetsTheOldestFirst) {
  std::mt19937 random(7);
  GhostQueue ghosts;
  std::deque<uint64_t> plain;
  for (int step = 0; step < 20000; ++step) {
    const uint64_t hash = HashOf(random() % 400);
    const uint32_t most = step < 10000 ? 100 : 40;
    if (random() % 3 == 0) {
      EXPECT_EQ(ghosts.Take(hash), std::erase(plain, hash) > 0);
    } else {
      ghosts.Remember(hash, most);
      std::erase(plain, hash);
      plain.push_back(hash);
      while (plain.size() > most) plain.pop_front();
    }
    ASSERT_EQ(ghosts.size(), plain.size());
    if (step % 64 == 0) ghosts.CheckInvariants();
  }
  EXPECT_LE(ghosts.MemoryBytes(), 100u * 32) << "holes do not pile up";
}

// The probes for these hashes run around the end of the table.
TEST(SlotIndexTest, FindsExactlyTheSlotsThatItHolds) {
  std::mt19937 random(23);
  std::vector<uint64_t> hashes;
  for (uint64_t i = 0; i < 64; ++i) {
    hashes.push_back(UINT64_MAX - (i << 54) - i);
  }
  const auto hash_of = [&](Slot slot) { return hashes[slot.value()]; };
  SlotIndex index;
  std::set<uint32_t> held;
  for (int step = 0; step < 20000; ++step) {
    const uint32_t slot = random() % 64;
    if (held.insert(slot).second) {
      index.Insert(Slot(slot), hash_of);
    } else {
      index.Erase(Slot(slot), hash_of);
      held.erase(slot);
    }
    const uint32_t asked = random() % 64;
    EXPECT_EQ(index.Find(hashes[asked], hash_of),
              held.contains(asked) ? Slot(asked) : kNoSlot);
    ASSERT_EQ(index.size(), held.size());
  }
}

}  // namespace
}  // namespace kdn::storage
