// Compares with Hugging Face Transformers. scripts/dev/make_logit_fixture.py
// made the expected values.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>

#include "model/llama.h"
#include "model/tokenizer.h"

namespace kdn::model {
namespace {

using Json = nlohmann::json;

const std::string kFixtures = KDN_SOURCE_DIR "/tests/model/fixtures/";
const std::string kRecall = KDN_SOURCE_DIR "/model/recall";

Json ReadJson(const std::string& path) {
  std::ifstream file(path);
  return Json::parse(file, nullptr, false);
}

std::vector<int32_t> Positions(size_t count) {
  std::vector<int32_t> positions(count);
  std::iota(positions.begin(), positions.end(), 0);
  return positions;
}

void ExpectNear(absl::Span<const float> actual,
                const std::vector<float>& wanted, float tolerance) {
  ASSERT_EQ(actual.size(), wanted.size());
  float most = 0;
  for (float value : wanted) most = std::max(most, std::fabs(value));
  for (size_t i = 0; i < wanted.size(); ++i) {
    EXPECT_NEAR(actual[i], wanted[i], tolerance * most) << i;
  }
}

class TransformersTest : public testing::TestWithParam<std::string> {};

TEST_P(TransformersTest, LogitsAndGreedyTokensAgree) {
  const std::string directory = kFixtures + GetParam();
  const Json expected = ReadJson(directory + "/expected.json");
  ASSERT_TRUE(expected.is_object());
  const auto llama = Llama::Load(directory, {Compute::kFp32, Dtype::kFp32});
  ASSERT_TRUE(llama.ok()) << llama.status();
  const auto tokens = expected["tokens"].get<std::vector<int32_t>>();
  KvCache cache((*llama)->spec(), static_cast<int>(tokens.size()) + 16);
  const auto logits = (*llama)->Prefill(cache, tokens, Positions(tokens.size()),
                                        LogitRows::kAll);
  ASSERT_TRUE(logits.ok()) << logits.status();
  const size_t vocab = (*llama)->config().vocab_size;
  const absl::Span<const float> all(*logits);
  ExpectNear(all.subspan(expected["middle"].get<size_t>() * vocab, vocab),
             expected["logits_middle"].get<std::vector<float>>(), 2e-4f);
  const auto last = all.last(vocab);
  ExpectNear(last, expected["logits_last"].get<std::vector<float>>(), 2e-4f);
  const auto decoded = (*llama)->Decode(cache, {last.begin(), last.end()}, 8);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  auto greedy = expected["greedy"].get<std::vector<int32_t>>();
  const auto& eos = (*llama)->config().eos_token_ids;
  greedy.erase(std::find(greedy.begin(), greedy.end(), eos.at(0)),
               greedy.end());
  EXPECT_EQ(*decoded, greedy);
}

INSTANTIATE_TEST_SUITE_P(Fixtures, TransformersTest,
                         testing::Values("llama_gqa", "llama_untied",
                                         "llama_linear", "llama_llama3",
                                         "llama_yarn", "qwen2_bias"));

TEST(TransformersTest, TheShippedCheckpointAndItsTokenizerAgree) {
  const Json expected = ReadJson(kFixtures + "recall.json");
  ASSERT_TRUE(expected.is_object());
  const auto tokenizer = Tokenizer::Load(kRecall);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  for (const Json& text : expected["texts"]) {
    EXPECT_EQ(*tokenizer->Encode(text["text"].get<std::string>()),
              text["ids"].get<std::vector<int32_t>>())
        << text["text"];
  }
  const auto tokens = *tokenizer->Encode(expected["prompt"].get<std::string>());
  EXPECT_EQ(tokens, expected["tokens"].get<std::vector<int32_t>>());
  const auto llama = Llama::Load(kRecall, {Compute::kFp32, Dtype::kFp32});
  ASSERT_TRUE(llama.ok()) << llama.status();
  KvCache cache((*llama)->spec(), static_cast<int>(tokens.size()) + 16);
  const auto logits = (*llama)->PrefillInChunks(cache, tokens, 0);
  ASSERT_TRUE(logits.ok()) << logits.status();
  ExpectNear(*logits, expected["logits_last"].get<std::vector<float>>(), 5e-4f);
}

}  // namespace
}  // namespace kdn::model
