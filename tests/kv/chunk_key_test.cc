#include "kv/chunk_key.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>

namespace kdn {
namespace {

ModelFingerprint SomeModel() {
  ModelSpec spec;
  spec.num_layers = spec.num_kv_heads = 1;
  spec.head_dim = 2;
  spec.rope.rotary_dim = 2;
  return FingerprintOf(spec);
}

ChunkIdentity SomeIdentity() {
  return {
      SomeModel(), *Namespace::Parse("tenant"), ChunkKey(), "raw", {1, 2, 3}};
}

TEST(NamespaceTest, RefusesInvalidNames) {
  EXPECT_TRUE(Namespace::Parse("team-a.prod_1").ok());
  for (const char* bad : {"", "a b", "a/b", "\n"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Namespace::Parse(bad).status())) << bad;
  }
  EXPECT_FALSE(Namespace::Parse(std::string(129, 'a')).ok());
}

TEST(ChunkKeyTest, DependsOnEveryFieldOfTheIdentity) {
  std::set<ChunkKey> keys = {KeyOf(SomeIdentity(), 0)};
  ChunkIdentity identity = SomeIdentity();
  identity.fingerprint = ModelFingerprint();
  EXPECT_TRUE(keys.insert(KeyOf(identity, 0)).second);
  identity = SomeIdentity();
  identity.ns = *Namespace::Parse("tenant2");
  EXPECT_TRUE(keys.insert(KeyOf(identity, 0)).second);
  identity = SomeIdentity();
  identity.condition = KeyOf(SomeIdentity(), 0);
  EXPECT_TRUE(keys.insert(KeyOf(identity, 0)).second);
  identity = SomeIdentity();
  identity.variant = "edited";
  EXPECT_TRUE(keys.insert(KeyOf(identity, 0)).second);
  identity = SomeIdentity();
  identity.tokens = {1, 2, 4};
  EXPECT_TRUE(keys.insert(KeyOf(identity, 0)).second);
  EXPECT_FALSE(keys.insert(KeyOf(SomeIdentity(), 0)).second);
}

TEST(ChunkKeyTest, RefusesInvalidIdentities) {
  ChunkIdentity identity = SomeIdentity();
  EXPECT_TRUE(Validate(identity).ok());
  identity.tokens.clear();
  EXPECT_FALSE(Validate(identity).ok());
  identity.tokens.assign(kChunkTokensMax + 1, 0);
  EXPECT_FALSE(Validate(identity).ok());
  identity.tokens = {-1};
  EXPECT_FALSE(Validate(identity).ok());
  identity = SomeIdentity();
  identity.variant = "";
  EXPECT_FALSE(Validate(identity).ok());
}

std::vector<uint8_t> Begin(const ChunkKey& key) {
  return {key.bytes().begin(), key.bytes().begin() + kPlacementBytes};
}

// One chunk under two placements would be two objects, of which a removal finds
// one.
TEST(ChunkKeyTest, AnotherPlacementIsAnotherKey) {
  ChunkIdentity identity = SomeIdentity();
  const ChunkKey key = KeyOf(identity, 3);
  EXPECT_EQ(Begin(key), Begin(identity.condition));
  EXPECT_EQ(KeyOf(identity, 4), key);
  EXPECT_NE(KeyOf(identity, 16), key);
  EXPECT_NE(Begin(KeyOf(identity, 16)), Begin(identity.condition));
  auto elsewhere = identity.condition.bytes();
  elsewhere[0] ^= 1;
  identity.condition = ChunkKey(elsewhere);
  EXPECT_NE(KeyOf(identity, 3), key);
}

// Disk threads, locks and eviction's memory of a key tell the chunks of a group
// apart, and so do people.
TEST(ChunkKeyTest, TheChunksOfAGroupDifferInTheirOwnBitsAndNames) {
  std::vector<int32_t> tokens(kChunkTokens * kPlacementGroupChunks);
  std::iota(tokens.begin(), tokens.end(), 0);
  std::set<uint64_t> bits, lanes;
  std::set<std::string> names;
  for (const ChainChunk& chunk :
       CutChain(SomeModel(), *Namespace::Parse("t"), tokens)) {
    bits.insert(OwnBits(chunk.ref.key));
    lanes.insert(OwnBits(chunk.ref.key) % 8);
    names.insert(ShortHex(chunk.ref.key));
    EXPECT_EQ(ShortHex(chunk.ref.key).size(), 18u);
  }
  EXPECT_EQ(bits.size(), 16u);
  EXPECT_EQ(names.size(), 16u);
  EXPECT_GE(lanes.size(), 4u);
}

TEST(CutChainTest, ChainsChunksAndGroupsThemForPlacement) {
  std::vector<int32_t> tokens(kChunkTokens * (kPlacementGroupChunks + 1) + 5);
  std::iota(tokens.begin(), tokens.end(), 0);
  const auto ns = *Namespace::Parse("t");
  const std::vector<ChainChunk> chain = CutChain(SomeModel(), ns, tokens);
  ASSERT_EQ(chain.size(), static_cast<size_t>(kPlacementGroupChunks) + 2);
  EXPECT_TRUE(chain[0].identity.condition.is_zero());
  std::vector<int32_t> joined;
  for (size_t i = 0; i < chain.size(); ++i) {
    EXPECT_EQ(chain[i].ref.key, KeyOf(chain[i].identity, chain[i].depth));
    EXPECT_EQ(chain[i].begin, static_cast<int>(i) * kChunkTokens);
    EXPECT_EQ(chain[i].depth, i);
    EXPECT_TRUE(ValidateDepth(chain[i].identity, chain[i].depth).ok());
    if (i > 0) {
      EXPECT_EQ(chain[i].identity.condition, chain[i - 1].ref.key);
    }
    const size_t head = i - i % kPlacementGroupChunks;
    EXPECT_EQ(Begin(chain[i].ref.key), Begin(chain[head].ref.key));
    if (i > 0 && i == head) {
      EXPECT_NE(Begin(chain[i].ref.key), Begin(chain[i - 1].ref.key));
    }
    joined.insert(joined.end(), chain[i].identity.tokens.begin(),
                  chain[i].identity.tokens.end());
  }
  EXPECT_EQ(joined, tokens);
  EXPECT_EQ(chain.back().identity.tokens.size(), 5u);
}

TEST(ChunkIdentityTest, DepthAndConditionAgree) {
  ChunkIdentity identity = SomeIdentity();
  identity.condition = ChunkKey();
  EXPECT_TRUE(ValidateDepth(identity, 0).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(ValidateDepth(identity, 1)));
  identity.condition = KeyOf(identity, 0);
  EXPECT_TRUE(ValidateDepth(identity, 1).ok());
  EXPECT_TRUE(ValidateDepth(identity, 4000000000).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(ValidateDepth(identity, 0)));
}

TEST(CutChainTest, EqualPrefixesShareTheirKeys) {
  std::vector<int32_t> one(3 * kChunkTokens, 7);
  std::vector<int32_t> other = one;
  other.back() = 8;
  const auto ns = *Namespace::Parse("t");
  const auto a = CutChain(SomeModel(), ns, one);
  const auto b = CutChain(SomeModel(), ns, other);
  EXPECT_EQ(a[0].ref, b[0].ref);
  EXPECT_EQ(a[1].ref, b[1].ref);
  EXPECT_NE(a[2].ref, b[2].ref);
  EXPECT_NE(a[0].ref.key, a[1].ref.key) << "equal tokens, another prefix";
}

}  // namespace
}  // namespace kdn
