#include "storage/eviction_policy.h"

#include <gtest/gtest.h>

#include <set>

namespace kdn::storage {
namespace {

ChunkKey Key(uint8_t i) {
  std::array<uint8_t, 32> bytes{};
  bytes[0] = i;
  return ChunkKey(bytes);
}

// What every policy promises, whatever its order.
template <typename Policy>
class EvictionPolicyTest : public testing::Test {};
using Policies = testing::Types<LruPolicy>;
TYPED_TEST_SUITE(EvictionPolicyTest, Policies);

TYPED_TEST(EvictionPolicyTest, NamesEveryObjectOnceUntilItIsEmpty) {
  TypeParam policy;
  for (uint8_t i = 0; i < 10; ++i) policy.OnInsert(Key(i));
  std::set<ChunkKey> gone;
  while (auto victim = policy.Victim([](const ChunkKey&) { return true; })) {
    EXPECT_TRUE(gone.insert(*victim).second);
    policy.OnErase(*victim);
  }
  EXPECT_EQ(gone.size(), 10u);
}

TYPED_TEST(EvictionPolicyTest, PassesOverWhatMayNotGo) {
  TypeParam policy;
  for (uint8_t i = 0; i < 3; ++i) policy.OnInsert(Key(i));
  EXPECT_EQ(policy.Victim([](const ChunkKey& k) { return k == Key(1); }),
            Key(1));
  EXPECT_FALSE(policy.Victim([](const ChunkKey&) { return false; }));
}

TEST(LruPolicyTest, LetsTheLeastRecentlyUsedGo) {
  LruPolicy policy;
  for (uint8_t i = 0; i < 3; ++i) policy.OnInsert(Key(i));
  policy.OnAccess(Key(0));
  const auto any = [](const ChunkKey&) { return true; };
  EXPECT_EQ(policy.Victim(any), Key(1));
  policy.OnErase(Key(1));
  EXPECT_EQ(policy.Victim(any), Key(2));
}

}  // namespace
}  // namespace kdn::storage
