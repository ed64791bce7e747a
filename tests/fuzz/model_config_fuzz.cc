// Parses any text as a config.json.

#include "kv/check.h"
#include "model/config.h"
#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto config = kdn::model::ParseConfig(
      std::string(reinterpret_cast<const char*>(data), size));
  if (!config.ok()) {
    KDN_CHECK(absl::IsInvalidArgument(config.status()) ||
                  absl::IsUnimplemented(config.status()),
              "a bad file is a typed error");
    return 0;
  }
  KDN_CHECK(config->num_layers > 0 && config->num_heads > 0 &&
                config->num_kv_heads > 0 && config->head_dim > 0 &&
                config->hidden_size > 0 && config->vocab_size > 0,
            "a model has a size");
  KDN_CHECK(config->num_heads % config->num_kv_heads == 0,
            "query heads share KV heads evenly");
  return 0;
}

namespace kdn::fuzz {

std::vector<std::string> Seeds() {
  std::vector<std::string> seeds = {ReadSource("model/recall/config.json")};
  for (const char* model : {"llama_gqa", "llama_linear", "llama_llama3",
                            "llama_untied", "llama_yarn", "qwen2_bias"}) {
    seeds.push_back(ReadSource(std::string("tests/model/fixtures/") + model +
                               "/config.json"));
  }
  return seeds;
}

}  // namespace kdn::fuzz
