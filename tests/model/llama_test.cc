#include "model/llama.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

namespace kdn::model {
namespace {

const std::string kModel = KDN_SOURCE_DIR "/tests/model/fixtures/llama_llama3";

class LlamaTest : public testing::Test {
 protected:
  LlamaTest() {
    auto loaded = Llama::Load(kModel, {Compute::kBf16, Dtype::kBf16});
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    llama_ = *std::move(loaded);
    for (int i = 0; i < 600; ++i) tokens_.push_back((i * 37 + 11) % 95);
  }
  std::vector<int32_t> Positions(int begin, int count) {
    std::vector<int32_t> positions(count);
    std::iota(positions.begin(), positions.end(), begin);
    return positions;
  }
  std::unique_ptr<Llama> llama_;
  std::vector<int32_t> tokens_;
};

// Does what the KDN does: copies the bytes of a prefix's KV into another cache
// and prefills the rest behind it.
TEST_F(LlamaTest, AMovedCacheGivesTheVeryLogits) {
  KvCache whole(llama_->spec(), 700);
  const auto expected = llama_->PrefillInChunks(whole, tokens_, 0);
  ASSERT_TRUE(expected.ok()) << expected.status();
  KvCache moved(llama_->spec(), 800);
  constexpr int kPrefix = 512;
  for (int layer = 0; layer < llama_->spec().num_layers; ++layer) {
    for (KvPart part : {KvPart::kK, KvPart::kV}) {
      for (int head = 0; head < llama_->spec().num_kv_heads; ++head) {
        for (int token = 0; token < kPrefix; ++token) {
          std::memcpy(moved.view().At(layer, part, head, token),
                      whole.view().At(layer, part, head, token),
                      whole.view().shape().head_bytes());
        }
      }
    }
  }
  moved.Append(Positions(0, kPrefix));
  const auto logits = llama_->PrefillInChunks(
      moved, absl::MakeConstSpan(tokens_).subspan(kPrefix), kPrefix);
  ASSERT_TRUE(logits.ok());
  EXPECT_EQ(*logits, *expected) << "bit for bit";
}

// The KV of a prefix came from elsewhere. The chunks behind it have the bits
// that they have when all is computed here. The prefixes that end within a
// chunk leave more than 128 tokens of it, so that oneDNN takes the same kernel.
TEST_F(LlamaTest, ChunksBehindAnyPrefixAreTheSameBits) {
  KvCache whole(llama_->spec(), 700);
  const auto expected = llama_->PrefillInChunks(whole, tokens_, 0);
  ASSERT_TRUE(expected.ok()) << expected.status();
  for (int prefix : {100, 256, 300, 512}) {
    KvCache cache(llama_->spec(), 700);
    std::memcpy(cache.view().At(0, KvPart::kK, 0, 0),
                whole.view().At(0, KvPart::kK, 0, 0),
                KvCache::BytesFor(llama_->spec(), 700));
    cache.Append(Positions(0, prefix));
    const auto logits = llama_->PrefillInChunks(
        cache, absl::MakeConstSpan(tokens_).subspan(prefix), prefix);
    ASSERT_TRUE(logits.ok()) << logits.status();
    EXPECT_EQ(*logits, *expected) << prefix;
    for (int layer = 0; layer < llama_->spec().num_layers; ++layer) {
      for (KvPart part : {KvPart::kK, KvPart::kV}) {
        EXPECT_EQ(std::memcmp(cache.view().At(layer, part, 0, 512),
                              whole.view().At(layer, part, 0, 512),
                              88 * whole.view().shape().head_bytes()),
                  0)
            << prefix << ' ' << layer;
      }
    }
  }
}

TEST_F(LlamaTest, ACacheOverForeignMemoryIsTheSame) {
  std::vector<std::byte> memory(KvCache::BytesFor(llama_->spec(), 64));
  KvCache foreign(llama_->spec(), 64, memory.data());
  KvCache own(llama_->spec(), 64);
  const auto tokens = absl::MakeConstSpan(tokens_).first(50);
  EXPECT_EQ(*llama_->PrefillInChunks(foreign, tokens, 0),
            *llama_->PrefillInChunks(own, tokens, 0));
  EXPECT_EQ(std::memcmp(foreign.view().At(1, KvPart::kV, 1, 0),
                        own.view().At(1, KvPart::kV, 1, 0),
                        50 * own.view().shape().head_bytes()),
            0);
}

TEST_F(LlamaTest, TheMaskGoesByPositionNotByPlace) {
  // The same tokens at the same positions, but the second half comes first in
  // the cache.
  const auto tokens = absl::MakeConstSpan(tokens_).first(20);
  KvCache straight(llama_->spec(), 32);
  const auto expected =
      llama_->Prefill(straight, tokens, Positions(0, 20), Causal, true);
  ASSERT_TRUE(expected.ok());
  std::vector<int32_t> shuffled_tokens(tokens.begin() + 10, tokens.end());
  shuffled_tokens.insert(shuffled_tokens.end(), tokens.begin(),
                         tokens.begin() + 10);
  std::vector<int32_t> shuffled_positions = Positions(10, 10);
  const std::vector<int32_t> first = Positions(0, 10);
  shuffled_positions.insert(shuffled_positions.end(), first.begin(),
                            first.end());
  KvCache shuffled(llama_->spec(), 32);
  const auto logits = llama_->Prefill(shuffled, shuffled_tokens,
                                      shuffled_positions, Causal, true);
  ASSERT_TRUE(logits.ok());
  const size_t vocab = llama_->config().vocab_size;
  for (size_t i = 0; i < vocab; ++i) {  // the token at position 19
    EXPECT_NEAR((*logits)[9 * vocab + i], (*expected)[19 * vocab + i], 0.05);
  }
}

TEST_F(LlamaTest, AnExplicitMaskHidesTokens) {
  const auto tokens = absl::MakeConstSpan(tokens_).first(8);
  KvCache all(llama_->spec(), 16);
  KvCache alone(llama_->spec(), 16);
  const auto itself = [](int32_t query, int32_t key, int) {
    return key == query;
  };
  const auto masked = llama_->Prefill(all, tokens, Positions(0, 8), itself);
  const auto single = llama_->Prefill(alone, tokens.subspan(7, 1), {7});
  ASSERT_TRUE(masked.ok() && single.ok());
  for (size_t i = 0; i < single->size(); ++i) {
    EXPECT_NEAR((*masked)[i], (*single)[i], 0.05) << i;
  }
}

TEST_F(LlamaTest, Bf16IsCloseToFp32) {
  const auto exact = Llama::Load(kModel, {Compute::kFp32, Dtype::kFp32});
  ASSERT_TRUE(exact.ok());
  KvCache a(llama_->spec(), 64);
  KvCache b((*exact)->spec(), 64);
  const auto tokens = absl::MakeConstSpan(tokens_).first(40);
  const auto rough = llama_->PrefillInChunks(a, tokens, 0);
  const auto fine = (*exact)->PrefillInChunks(b, tokens, 0);
  ASSERT_TRUE(rough.ok() && fine.ok());
  float most = 0;
  for (float value : *fine) most = std::max(most, std::abs(value));
  for (size_t i = 0; i < fine->size(); ++i) {
    EXPECT_NEAR((*rough)[i], (*fine)[i], 0.05 * most);
  }
}

TEST_F(LlamaTest, BadCallsAreTypedAndChangeNothing) {
  KvCache cache(llama_->spec(), 4);
  EXPECT_TRUE(
      absl::IsInvalidArgument(llama_->Prefill(cache, {1, 2}, {0}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(llama_->Prefill(cache, {}, {}).status()));
  EXPECT_TRUE(
      absl::IsInvalidArgument(llama_->Prefill(cache, {96}, {0}).status()));
  EXPECT_TRUE(absl::IsOutOfRange(llama_->Prefill(cache, {1}, {-1}).status()));
  EXPECT_TRUE(absl::IsResourceExhausted(
      llama_->Prefill(cache, {1, 2, 3, 4, 5}, {0, 1, 2, 3, 4}).status()));
  EXPECT_EQ(cache.size(), 0);
}

TEST(LlamaLoadTest, ADirectoryWithoutACheckpointIsNamed) {
  const auto llama = Llama::Load("/nonexistent", {});
  EXPECT_TRUE(absl::IsNotFound(llama.status()));
  EXPECT_NE(llama.status().message().find("/nonexistent"), std::string::npos);
}

}  // namespace
}  // namespace kdn::model
