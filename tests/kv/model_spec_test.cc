#include "kv/model_spec.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>
#include <vector>

namespace kdn {
namespace {

ModelSpec Good() {
  ModelSpec spec;
  spec.name = "m";
  spec.num_layers = 2;
  spec.num_kv_heads = 2;
  spec.head_dim = 64;
  spec.rope.rotary_dim = 64;
  return spec;
}

TEST(ModelSpecTest, TheFingerprintCoversEverythingButTheName) {
  const std::vector<std::function<void(ModelSpec&)>> changes = {
      [](ModelSpec& s) { s.num_layers = 3; },
      [](ModelSpec& s) { s.num_kv_heads = 1; },
      [](ModelSpec& s) { s.head_dim = 128; },
      [](ModelSpec& s) { s.dtype = Dtype::kFp32; },
      [](ModelSpec& s) { s.rope.theta = 5e5; },
      [](ModelSpec& s) { s.rope.rotary_dim = 32; },
      [](ModelSpec& s) { s.rope.pairing = RopePairing::kGptJ; },
      [](ModelSpec& s) { s.rope.scaling = RopeScaling::kLinear; },
      [](ModelSpec& s) { s.rope.factor = 2; },
      [](ModelSpec& s) { s.rope.low_freq_factor = 2; },
      [](ModelSpec& s) { s.rope.high_freq_factor = 2; },
      [](ModelSpec& s) { s.rope.original_max_position = 2; },
      [](ModelSpec& s) { s.rope.beta_fast = 2; },
      [](ModelSpec& s) { s.rope.beta_slow = 2; },
      [](ModelSpec& s) { s.rope.attention_factor = 2; },
      [](ModelSpec& s) { s.weights_digest = "w"; },
      [](ModelSpec& s) { s.tokenizer_digest = "w"; },
  };
  std::set<ModelFingerprint> seen = {FingerprintOf(Good())};
  for (const auto& change : changes) {
    ModelSpec spec = Good();
    change(spec);
    EXPECT_TRUE(seen.insert(FingerprintOf(spec)).second) << seen.size();
  }
  ModelSpec renamed = Good();
  renamed.name = "n";
  EXPECT_EQ(FingerprintOf(renamed), FingerprintOf(Good()));
}

TEST(ModelSpecTest, AModelWithoutRotationIsValid) {
  ModelSpec spec = Good();
  spec.rope.rotary_dim = 0;
  EXPECT_TRUE(Validate(spec).ok());
}

TEST(ModelSpecTest, TheErrorNamesTheInvalidField) {
  EXPECT_TRUE(Validate(Good()).ok());
  ModelSpec spec = Good();
  spec.num_layers = kLayersMax + 1;
  EXPECT_NE(Validate(spec).message().find("num_layers"), std::string::npos);
  spec = Good();
  spec.head_dim = 0;
  EXPECT_NE(Validate(spec).message().find("head_dim"), std::string::npos);
  spec = Good();
  for (int rotary_dim : {-2, 63, 66}) {
    spec.rope.rotary_dim = rotary_dim;
    EXPECT_NE(Validate(spec).message().find("rotary_dim"), std::string::npos);
  }
  spec = Good();
  spec.weights_digest.assign(kNameBytesMax + 1, 'x');
  EXPECT_FALSE(Validate(spec).ok());
  spec = Good();
  spec.dtype = static_cast<Dtype>(9);
  EXPECT_FALSE(Validate(spec).ok());
}

}  // namespace
}  // namespace kdn
