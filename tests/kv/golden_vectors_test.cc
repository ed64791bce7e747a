#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "kv/chunk_key.h"

namespace kdn {
namespace {

using Json = nlohmann::json;

// Every client in every language depends on these keys: a change here is a new
// version of the protocol. They were computed once by an independent
// implementation (Python's hashlib and struct) from the layout in
// docs/protocol.md.
TEST(GoldenVectorsTest, NeverChange) {
  const std::vector<GoldenVector> golden = GoldenVectors();
  ASSERT_EQ(golden.size(), 3u);
  EXPECT_EQ(golden[0].label, "model");
  EXPECT_EQ(Hex(golden[0].key),
            "2970093b296b59adc0678d790798a518bdbfe0499805865a81c221de5c6ff304");
  EXPECT_EQ(golden[1].label, "first-chunk");
  EXPECT_EQ(Hex(golden[1].key),
            "9dfc56cf158ddb500545fd0df70789866a650e1d2306a73b2c6957b704f0c159");
  EXPECT_EQ(golden[2].label, "chained-chunk");
  EXPECT_EQ(Hex(golden[2].key),
            "9dfc56cf158ddb50601f0ca5addc2ce40863d8ffb816a10602b7c717f51d55b2");
}

template <typename Enum>
Enum EnumOf(const Json& name, const std::map<std::string, Enum>& names) {
  return names.at(name.get<std::string>());
}

ModelSpec ModelOf(const Json& json) {
  ModelSpec model;
  model.num_layers = json["num_layers"];
  model.num_kv_heads = json["num_kv_heads"];
  model.head_dim = json["head_dim"];
  model.dtype = EnumOf<Dtype>(
      json["dtype"],
      {{"bf16", Dtype::kBf16}, {"fp16", Dtype::kFp16}, {"fp32", Dtype::kFp32}});
  model.weights_digest = json["weights_digest"];
  model.tokenizer_digest = json["tokenizer_digest"];
  const Json& rope = json["rope"];
  model.rope.theta = rope["theta"];
  model.rope.rotary_dim = rope["rotary_dim"];
  model.rope.pairing = EnumOf<RopePairing>(
      rope["pairing"],
      {{"neoX", RopePairing::kNeoX}, {"gptJ", RopePairing::kGptJ}});
  model.rope.scaling =
      EnumOf<RopeScaling>(rope["scaling"], {{"none", RopeScaling::kNone},
                                            {"linear", RopeScaling::kLinear},
                                            {"llama3", RopeScaling::kLlama3},
                                            {"yarn", RopeScaling::kYarn}});
  model.rope.factor = rope["factor"];
  model.rope.low_freq_factor = rope["low_freq_factor"];
  model.rope.high_freq_factor = rope["high_freq_factor"];
  model.rope.original_max_position = rope["original_max_position"];
  model.rope.beta_fast = rope["beta_fast"];
  model.rope.beta_slow = rope["beta_slow"];
  model.rope.attention_factor = rope["attention_factor"];
  return model;
}

// python/tests/test_keys.py reads the same file, and made it.
TEST(GoldenVectorsTest, ChainsAreCutAsInEveryOtherLanguage) {
  std::ifstream file(KDN_SOURCE_DIR "/tests/kv/chain_vectors.json");
  const Json vectors = Json::parse(file);
  ASSERT_GE(vectors.size(), 3u);
  for (const Json& vector : vectors) {
    const ModelFingerprint fingerprint =
        FingerprintOf(ModelOf(vector["model"]));
    EXPECT_EQ(Hex(fingerprint), vector["fingerprint"].get<std::string>());
    const Json& made = vector["tokens"];
    const int64_t multiplier = made["multiplier"];
    const int64_t modulus = made["modulus"];
    std::vector<int32_t> tokens(made["count"].get<size_t>());
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] =
          static_cast<int32_t>(static_cast<int64_t>(i) * multiplier % modulus);
    }
    const Namespace ns =
        *Namespace::Parse(vector["namespace"].get<std::string>());
    const std::vector<ChainChunk> chain = CutChain(fingerprint, ns, tokens);
    ASSERT_EQ(chain.size(), vector["keys"].size());
    for (size_t i = 0; i < chain.size(); ++i) {
      EXPECT_EQ(Hex(chain[i].ref.key), vector["keys"][i].get<std::string>());
    }
  }
}

}  // namespace
}  // namespace kdn
