// Asks the shipped weights every held-out question. An answer is right only if
// the knowledge is in the model's KV.
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "model/llama.h"
#include "model/tokenizer.h"

namespace kdn::model {
namespace {

const std::string kRecall = KDN_SOURCE_DIR "/model/recall";

TEST(RecallTest, FullPrefillAnswersNearlyEverything) {
  const auto llama = Llama::Load(kRecall, {});
  ASSERT_TRUE(llama.ok()) << llama.status();
  const auto tokenizer = Tokenizer::Load(kRecall);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::ifstream file(kRecall + "/eval.jsonl");
  std::map<std::string, std::pair<int, int>> right;  // by task: right, asked
  for (std::string line; std::getline(file, line);) {
    const auto instance = nlohmann::json::parse(line);
    std::string text;
    for (const auto& document : instance["documents"]) {
      text += document.get<std::string>();
    }
    const std::vector<int32_t> context = *tokenizer->Encode(text);
    KvCache cache((*llama)->spec(), static_cast<int>(context.size()) + 64);
    ASSERT_TRUE((*llama)->PrefillInChunks(cache, context, 0).ok());
    for (const auto& asked : instance["asked"]) {
      cache.Truncate(static_cast<int>(context.size()));
      const auto logits = (*llama)->PrefillInChunks(
          cache,
          *tokenizer->Encode("<q> " + asked["question"].get<std::string>()),
          cache.size());
      ASSERT_TRUE(logits.ok()) << logits.status();
      auto& [hits, total] = right[asked["task"].get<std::string>()];
      ++total;
      hits += *tokenizer->Decode({Argmax(*logits)}) ==
                      " " + asked["answer"].get<std::string>()
                  ? 1
                  : 0;
    }
  }
  for (const char* task : {"recall", "binding", "twohop"}) {
    const auto& [hits, total] = right[task];
    std::printf("%s: %d of %d right\n", task, hits, total);
    EXPECT_GE(total, 100);
    EXPECT_GE(hits, 0.98 * total) << task;
  }
}

}  // namespace
}  // namespace kdn::model
