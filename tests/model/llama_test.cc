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
  void ExpectSameKv(const KvCache& a, const KvCache& b, int tokens) {
    for (int layer = 0; layer < llama_->spec().num_layers; ++layer) {
      for (KvPart part : {KvPart::kK, KvPart::kV}) {
        for (int head = 0; head < llama_->spec().num_kv_heads; ++head) {
          EXPECT_EQ(std::memcmp(a.view().At(layer, part, head, 0),
                                b.view().At(layer, part, head, 0),
                                tokens * a.view().shape().head_bytes()),
                    0)
              << layer << ' ' << head;
        }
      }
    }
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

// A row's bits do not depend on the call that it is in. So the KV of a text has
// the same bits however the text is cut into calls: token by token, within
// chunks, or as one call.
TEST_F(LlamaTest, AnyCutIntoCallsGivesTheSameBits) {
  KvCache whole(llama_->spec(), 700);
  const auto expected = llama_->Prefill(whole, tokens_, Positions(0, 600));
  ASSERT_TRUE(expected.ok()) << expected.status();
  const std::vector<std::vector<int>> cuts = {{256, 256, 88},
                                              {1, 1, 1, 597},
                                              {100, 413, 87},
                                              {599, 1},
                                              std::vector<int>(40, 15)};
  for (const std::vector<int>& cut : cuts) {
    KvCache cache(llama_->spec(), 700);
    absl::StatusOr<std::vector<float>> logits;
    for (const int count : cut) {
      const int begin = cache.size();
      logits = llama_->Prefill(
          cache, absl::MakeConstSpan(tokens_).subspan(begin, count),
          Positions(begin, count));
      ASSERT_TRUE(logits.ok()) << logits.status();
    }
    EXPECT_EQ(*logits, *expected) << cut[0];
    ExpectSameKv(cache, whole, 600);
  }
}

// What the cache held before does not count, and neither does the memory that
// was used for another call.
TEST_F(LlamaTest, AUsedCacheGivesTheSameBits) {
  KvCache fresh(llama_->spec(), 300);
  const auto tokens = absl::MakeConstSpan(tokens_).first(90);
  const auto expected = llama_->Prefill(fresh, tokens, Positions(0, 90));
  KvCache used(llama_->spec(), 300);
  std::memset(used.view().At(0, KvPart::kK, 0, 0), 0xff,  // NaN
              KvCache::BytesFor(llama_->spec(), 300));
  ASSERT_TRUE(llama_
                  ->Prefill(used, absl::MakeConstSpan(tokens_).last(250),
                            Positions(0, 250), LogitRows::kAll)
                  .ok());
  used.Truncate(0);
  const auto logits = llama_->Prefill(used, tokens, Positions(0, 90));
  ASSERT_TRUE(expected.ok() && logits.ok());
  EXPECT_EQ(*logits, *expected);
}

TEST_F(LlamaTest, ASequenceHasTheSameBitsInABatch) {
  const std::vector<int> lengths = {1, 90, 33, 257};
  std::vector<KvCache> alone;
  std::vector<KvCache> together;
  std::vector<float> expected;
  std::vector<Sequence> batch;
  std::vector<std::vector<int32_t>> positions;
  for (const int length : lengths) {
    alone.emplace_back(llama_->spec(), 300);
    together.emplace_back(llama_->spec(), 400);
    positions.push_back(Positions(length, length));
  }
  for (size_t i = 0; i < lengths.size(); ++i) {
    const auto tokens =
        absl::MakeConstSpan(tokens_).subspan(10 * i, lengths[i]);
    const auto logits =
        llama_->Prefill(alone[i], tokens, positions[i], LogitRows::kLast);
    ASSERT_TRUE(logits.ok()) << logits.status();
    expected.insert(expected.end(), logits->begin(), logits->end());
    batch.push_back(
        {.cache = &together[i], .tokens = tokens, .positions = positions[i]});
  }
  const auto logits = llama_->PrefillBatch(batch);
  ASSERT_TRUE(logits.ok()) << logits.status();
  EXPECT_EQ(*logits, expected);
  for (size_t i = 0; i < lengths.size(); ++i) {
    ExpectSameKv(together[i], alone[i], lengths[i]);
  }
}

TEST_F(LlamaTest, ABatchHasACacheForEachSequence) {
  KvCache cache(llama_->spec(), 8);
  const std::vector<int32_t> position = {0};
  const auto tokens = absl::MakeConstSpan(tokens_).first(1);
  const Sequence one{.cache = &cache, .tokens = tokens, .positions = position};
  EXPECT_TRUE(
      absl::IsInvalidArgument(llama_->PrefillBatch({one, one}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(llama_->PrefillBatch({}).status()));
  EXPECT_EQ(cache.size(), 0);
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
      llama_->Prefill(straight, tokens, Positions(0, 20), LogitRows::kAll);
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
                                      shuffled_positions, LogitRows::kAll);
  ASSERT_TRUE(logits.ok());
  const size_t vocab = llama_->config().vocab_size;
  for (size_t i = 0; i < vocab; ++i) {  // the token at position 19
    EXPECT_NEAR((*logits)[9 * vocab + i], (*expected)[19 * vocab + i], 0.05);
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
