#include "blend/blender.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <optional>
#include <string>

namespace kdn::blend {
namespace {

const std::string kFixtures = KDN_SOURCE_DIR "/tests/model/fixtures/";

// Chooses the tokens it is given.
class TheseTokens : public Selection {
 public:
  explicit TheseTokens(std::vector<int> tokens) : tokens_(std::move(tokens)) {}
  std::string name() const override { return "these"; }
  std::vector<float> Score(const Evidence& evidence) const override {
    std::vector<float> scores;
    for (const int token : evidence.candidates) {
      scores.push_back(
          std::count(tokens_.begin(), tokens_.end(), token) > 0 ? 1.0f : 0.0f);
    }
    return scores;
  }

 private:
  std::vector<int> tokens_;
};

std::vector<std::unique_ptr<Selection>> AllSelections() {
  std::vector<std::unique_ptr<Selection>> all;
  all.push_back(RandomTokens(7));
  all.push_back(PartHeads());
  all.push_back(PartEnds());
  all.push_back(KvDeviation(0));
  all.push_back(KvDeviation(1));
  all.push_back(QueryAttention());
  all.push_back(AttentionTimesDeviation(1));
  all.push_back(AttendedParts());
  return all;
}

class BlenderTest : public testing::Test {
 protected:
  static constexpr int kTokens = 140;
  static constexpr int kRoom = 8;  // for the query

  void Load(const std::string& fixture, model::Llama::Options options = {}) {
    auto loaded = model::Llama::Load(kFixtures + fixture, options);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    llama_ = *std::move(loaded);
    blender_.emplace(*llama_);
    composition_ = {};
    for (int i = 0; i < kTokens; ++i) {
      composition_.tokens.push_back((i * 37 + 11) % 90);
    }
  }
  int layers() const { return llama_->config().num_layers; }
  size_t bytes() const {
    return model::KvCache::BytesFor(llama_->spec(), kTokens + kRoom);
  }
  std::vector<int32_t> Positions(int begin, int end) const {
    std::vector<int32_t> positions(static_cast<size_t>(end - begin));
    std::iota(positions.begin(), positions.end(), begin);
    return positions;
  }
  // Splits the tokens into parts that end at `ends`; the first `exact` of them
  // are exact.
  void Split(const std::vector<int>& ends, int exact) {
    composition_.parts.clear();
    for (const int end : ends) {
      const int begin =
          composition_.parts.empty() ? 0 : composition_.parts.back().end;
      composition_.parts.push_back({begin, end, exact-- > 0});
    }
    composition_.prefix =
        composition_.parts.front().exact ? composition_.parts.front().end : 0;
  }
  model::KvCache CopyOf(const model::KvCache& cache) const {
    model::KvCache copy(llama_->spec(), kTokens + kRoom);
    std::memcpy(copy.view().base(), cache.view().base(), bytes());
    copy.Append(cache.positions());
    return copy;
  }
  // The KV of a prefill of all tokens.
  model::KvCache Whole() const {
    model::KvCache cache(llama_->spec(), kTokens + kRoom);
    Fill(cache, 0, kTokens);
    return cache;
  }
  // The KV of exact parts as in `whole`, and of others as if they stood alone.
  model::KvCache Reused(const model::KvCache& whole) const {
    model::KvCache cache(llama_->spec(), kTokens + kRoom);
    cache.Append(Positions(0, kTokens));
    for (const Part& part : composition_.parts) {
      if (part.exact) {
        Copy(whole, part.begin, cache, part.begin, part.end - part.begin);
        continue;
      }
      model::KvCache alone(llama_->spec(), part.end - part.begin);
      Fill(alone, part.begin, part.end);
      Copy(alone, 0, cache, part.begin, part.end - part.begin);
    }
    return cache;
  }
  void Fill(model::KvCache& cache, int begin, int end) const {
    const auto tokens =
        absl::MakeConstSpan(composition_.tokens).subspan(begin, end - begin);
    ASSERT_TRUE(llama_
                    ->Prefill(cache, tokens, Positions(begin, end),
                              model::LogitRows::kNone)
                    .ok());
  }
  static void ForEachRow(const model::KvCache& cache, int token,
                         const std::function<void(std::byte*, size_t)>& take) {
    const KvShape& shape = cache.view().shape();
    for (int layer = 0; layer < shape.layers; ++layer) {
      for (const KvPart part : {KvPart::kK, KvPart::kV}) {
        for (int head = 0; head < shape.kv_heads; ++head) {
          take(cache.view().At(layer, part, head, token), shape.head_bytes());
        }
      }
    }
  }
  static std::string BytesOf(const model::KvCache& cache, int token) {
    std::string bytes;
    ForEachRow(cache, token, [&](std::byte* row, size_t count) {
      bytes.append(reinterpret_cast<const char*>(row), count);
    });
    return bytes;
  }
  static void Copy(const model::KvCache& from, int begin, model::KvCache& to,
                   int at, int count) {
    for (int i = 0; i < count; ++i) {
      const std::string bytes = BytesOf(from, begin + i);
      size_t next = 0;
      ForEachRow(to, at + i, [&](std::byte* row, size_t size) {
        std::memcpy(row, bytes.data() + next, size);
        next += size;
      });
    }
  }
  static void Spoil(model::KvCache& cache, int token) {
    ForEachRow(cache, token, [](std::byte* row, size_t size) {
      std::memset(row, 0x42, size);
    });
  }

  std::unique_ptr<model::Llama> llama_;
  std::optional<Blender> blender_;
  Composition composition_;
  const std::vector<int32_t> query_ = {3, 14, 15, 9, 2};
  // Of any query.
  const std::vector<float> attention_ = [] {
    std::vector<float> attention;
    for (int i = 0; i < kTokens; ++i) attention.push_back(i * 29 % 31);
    return attention;
  }();
};

TEST_F(BlenderTest, WithARatioOfOneTheCacheIsAFullPrefill) {
  const model::Llama::Options fp32 = {model::Compute::kFp32, Dtype::kFp32};
  for (const char* fixture :
       {"llama_gqa", "llama_llama3", "llama_untied", "qwen2_bias"}) {
    for (const bool in_fp32 : {false, true}) {
      Load(fixture, in_fp32 ? fp32 : model::Llama::Options{});
      const model::KvCache whole = Whole();
      for (const int exact : {0, 1, 2}) {
        Split({6, 40, 41, 100, kTokens}, exact);
        const model::KvCache reused = Reused(whole);
        for (const auto& selection : AllSelections()) {
          model::KvCache cache = CopyOf(reused);
          const auto blended =
              blender_->Blend(composition_, cache, attention_, *selection, 1.0);
          ASSERT_TRUE(blended.ok()) << blended.status();
          EXPECT_EQ(blended->rows, composition_.Inexact());
          for (int token = 0; token < kTokens; ++token) {
            ASSERT_EQ(BytesOf(cache, token), BytesOf(whole, token))
                << fixture << " " << selection->name() << " token " << token;
          }
        }
      }
    }
  }
}

TEST_F(BlenderTest, WithARatioOfZeroTheCacheIsUnchanged) {
  Load("llama_gqa");
  Split({6, 40, kTokens}, 1);
  const model::KvCache reused = Reused(Whole());
  for (const auto& selection : AllSelections()) {
    model::KvCache cache = CopyOf(reused);
    const auto blended =
        blender_->Blend(composition_, cache, attention_, *selection, 0);
    ASSERT_TRUE(blended.ok()) << blended.status();
    EXPECT_TRUE(blended->rows.empty());
    EXPECT_EQ(blended->flops, 0);
    for (int token = 0; token < kTokens; ++token) {
      ASSERT_EQ(BytesOf(cache, token), BytesOf(reused, token));
    }
  }
}

TEST_F(BlenderTest, ARowSeesTheRowsUpToItsPositionAndNoOthers) {
  Load("llama_gqa");
  Split({6, 40, 80, kTokens}, 1);
  const std::vector<int> rows = {41, 60, 90};
  const double ratio = 3.0 / (kTokens - 6);
  const model::KvCache reused = Reused(Whole());
  model::KvCache expected = CopyOf(reused);
  ASSERT_TRUE(
      blender_->Blend(composition_, expected, {}, TheseTokens(rows), ratio)
          .ok());
  for (int spoilt = 0; spoilt < kTokens; ++spoilt) {
    if (std::count(rows.begin(), rows.end(), spoilt) > 0) continue;
    model::KvCache cache = CopyOf(reused);
    Spoil(cache, spoilt);
    ASSERT_TRUE(
        blender_->Blend(composition_, cache, {}, TheseTokens(rows), ratio)
            .ok());
    for (const int row : rows) {
      EXPECT_EQ(BytesOf(cache, row) == BytesOf(expected, row), spoilt > row)
          << "row " << row << ", token " << spoilt;
    }
  }
}

TEST_F(BlenderTest, OnlyTheChosenRowsChange) {
  Load("llama_gqa");
  Split({6, 40, 80, kTokens}, 1);
  const model::KvCache reused = Reused(Whole());
  for (const auto& selection : AllSelections()) {
    model::KvCache cache = CopyOf(reused);
    const auto blended =
        blender_->Blend(composition_, cache, attention_, *selection, 0.15);
    ASSERT_TRUE(blended.ok()) << blended.status();
    EXPECT_EQ(blended->rows.size(), 20u);  // 0.15 of 134
    const KvShape& shape = cache.view().shape();
    for (int token = 0; token < kTokens; ++token) {
      if (std::count(blended->rows.begin(), blended->rows.end(), token) > 0) {
        continue;
      }
      // Up to the check layer all candidates are computed anew.
      const int kept = selection->check_layer() + 1;
      for (int layer = token < 6 ? 0 : kept; layer < shape.layers; ++layer) {
        ASSERT_EQ(std::memcmp(cache.view().At(layer, KvPart::kK, 0, token),
                              reused.view().At(layer, KvPart::kK, 0, token),
                              shape.head_bytes()),
                  0)
            << selection->name() << " layer " << layer << " token " << token;
      }
    }
  }
}

TEST_F(BlenderTest, DeviationFindsTheRowsThatAreWrong) {
  Load("llama_gqa");
  Split({6, 40, 80, kTokens}, 1);
  // All KV is exact, but that of three rows.
  const model::KvCache whole = Whole();
  model::KvCache cache = CopyOf(whole);
  const std::vector<int> wrong = {45, 46, 120};
  for (const int row : wrong) Spoil(cache, row);
  const auto blended = blender_->Blend(composition_, cache, {}, *KvDeviation(1),
                                       3.0 / (kTokens - 6));
  ASSERT_TRUE(blended.ok()) << blended.status();
  EXPECT_EQ(blended->rows, wrong);
  EXPECT_EQ(blended->first_layer, 1);
  for (int token = 0; token < kTokens; ++token) {
    EXPECT_EQ(BytesOf(cache, token), BytesOf(whole, token)) << token;
  }
}

TEST_F(BlenderTest, AskGivesThePrefillsLogitsAndLeavesTheCache) {
  Load("llama_gqa");
  model::KvCache cache = Whole();
  std::vector<std::string> before;
  for (int token = 0; token < kTokens; ++token) {
    before.push_back(BytesOf(cache, token));
  }
  const auto answer = blender_->Ask(cache, query_, true);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(cache.size(), kTokens);
  for (int token = 0; token < kTokens; ++token) {
    EXPECT_EQ(BytesOf(cache, token), before[token]);
  }
  // Each row and head pays 1 in each layer, of which the query gets a part.
  ASSERT_EQ(answer->attention.size(), static_cast<size_t>(kTokens));
  const double sum =
      std::accumulate(answer->attention.begin(), answer->attention.end(), 0.0);
  const double most = static_cast<double>(query_.size()) *
                      llama_->config().num_heads * layers();
  EXPECT_GT(sum, 0.3 * most);
  EXPECT_LT(sum, most);
  const auto logits =
      llama_->Prefill(cache, query_, Positions(kTokens, kTokens + 5));
  ASSERT_TRUE(logits.ok());
  EXPECT_EQ(answer->logits, *logits);
}

// Counts by the sizes of the model what the pass counts by its calls.
TEST_F(BlenderTest, CountsFlops) {
  Load("llama_gqa");
  Split({6, 40, 80, kTokens}, 1);
  const model::ModelConfig& config = llama_->config();
  const double qkv = 2.0 * config.hidden_size * config.head_dim *
                     (config.num_heads + 2 * config.num_kv_heads);
  const double rest =
      2.0 * config.hidden_size * config.head_dim * config.num_heads +
      6.0 * config.hidden_size * config.intermediate_size;
  const double pair = 4.0 * config.num_heads * config.head_dim;
  model::KvCache cache = Reused(Whole());
  const auto blended = blender_->Blend(
      composition_, cache, {}, TheseTokens({50, 100}), 2.0 / (kTokens - 6));
  ASSERT_TRUE(blended.ok()) << blended.status();
  // The last layer writes KV only.
  EXPECT_DOUBLE_EQ(
      blended->flops,
      2 * qkv * layers() + (2 * rest + pair * (51 + 101)) * (layers() - 1));
}

TEST_F(BlenderTest, RefusesWhatDoesNotFitTogether) {
  Load("llama_gqa");
  Split({6, 40, kTokens}, 1);
  model::KvCache cache = Reused(Whole());
  const auto error_of = [&](const Composition& composition,
                            const Selection& selection, double ratio) {
    const absl::Status status =
        blender_->Blend(composition, cache, {}, selection, ratio).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    return std::string(status.message());
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double ratio : {-0.1, 1.1, nan}) {
    EXPECT_NE(error_of(composition_, *PartHeads(), ratio).find("ratio"),
              std::string::npos);
  }
  EXPECT_NE(
      error_of(composition_, *KvDeviation(layers()), 0.1).find("check layer"),
      std::string::npos);
  Composition longer = composition_;
  longer.tokens.push_back(1);
  longer.parts.back().end += 1;
  EXPECT_NE(error_of(longer, *PartHeads(), 0.1).find("140"), std::string::npos);
  composition_.parts[1].begin = 5;
  EXPECT_NE(error_of(composition_, *PartHeads(), 0.1).find("ends at 6"),
            std::string::npos);
  model::KvCache moved(llama_->spec(), kTokens + kRoom);
  moved.Append(Positions(1, kTokens + 1));
  Split({6, 40, kTokens}, 1);
  const absl::Status status =
      blender_->Blend(composition_, moved, {}, *PartHeads(), 0.1).status();
  EXPECT_NE(status.message().find("at position 1"), std::string::npos);
  EXPECT_NE(error_of(composition_, *QueryAttention(), 0.1)
                .find("attention to each of 140 tokens"),
            std::string::npos);
}

}  // namespace
}  // namespace kdn::blend
