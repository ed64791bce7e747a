#include "model/config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

namespace kdn::model {
namespace {

nlohmann::json Good() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"vocab_size", 100},
          {"hidden_size", 64},
          {"intermediate_size", 128},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"max_position_embeddings", 4096}};
}

absl::Status StatusOf(const nlohmann::json& json) {
  return ParseConfig(json.dump()).status();
}

TEST(ConfigTest, ReadsGeometryAndDefaults) {
  const auto config = ParseConfig(Good().dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->head_dim, 16);
  EXPECT_EQ(config->rope.theta, 10000.0);
  EXPECT_FALSE(config->attention_bias);
}

TEST(ConfigTest, BothSpellingsOfRopeScaling) {
  for (const char* spelling : {"type", "rope_type"}) {
    nlohmann::json json = Good();
    json["rope_scaling"] = {{spelling, "yarn"}, {"factor", 4.0}};
    const auto config = ParseConfig(json.dump());
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->rope.scaling, RopeScaling::kYarn);
    EXPECT_EQ(config->rope.original_max_position, 4096);
    EXPECT_NEAR(config->rope.attention_factor, 0.1 * std::log(4.0) + 1, 1e-12);
  }
}

TEST(ConfigTest, RopeParametersOfTransformers5) {
  nlohmann::json json = Good();
  json["rope_parameters"] = {
      {"rope_theta", 500000.0}, {"rope_type", "linear"}, {"factor", 2.0}};
  auto config = ParseConfig(json.dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope.theta, 500000.0);
  EXPECT_EQ(config->rope.scaling, RopeScaling::kLinear);
  json["rope_parameters"]["partial_rotary_factor"] = 0.5;
  EXPECT_TRUE(absl::IsUnimplemented(ParseConfig(json.dump()).status()));
  json["rope_parameters"] = {{"rope_theta", -2.0}};
  EXPECT_FALSE(ParseConfig(json.dump()).ok());
}

TEST(ConfigTest, Qwen2HasItsBiases) {
  nlohmann::json json = Good();
  json["architectures"] = {"Qwen2ForCausalLM"};
  const auto config = ParseConfig(json.dump());
  ASSERT_TRUE(config.ok());
  EXPECT_TRUE(config->attention_bias);
  EXPECT_FALSE(config->output_bias);
}

TEST(ConfigTest, EveryMistakeNamesItsField) {
  for (const char* field : {"vocab_size", "hidden_size", "num_hidden_layers"}) {
    nlohmann::json json = Good();
    json.erase(field);
    EXPECT_TRUE(absl::IsInvalidArgument(StatusOf(json)));
    EXPECT_NE(StatusOf(json).message().find(field), std::string::npos);
    json[field] = "many";
    EXPECT_NE(StatusOf(json).message().find(field), std::string::npos);
    json[field] = -1;
    EXPECT_TRUE(absl::IsInvalidArgument(StatusOf(json)));
  }
  nlohmann::json json = Good();
  json["num_key_value_heads"] = 3;
  EXPECT_TRUE(absl::IsInvalidArgument(StatusOf(json)));
  EXPECT_TRUE(absl::IsInvalidArgument(ParseConfig("{").status()));
}

TEST(ConfigTest, AQuotientThatIsNoHeadDimIsRefused) {
  for (int hidden_size : {1, 1 << 20}) {
    nlohmann::json json = Good();
    json["hidden_size"] = hidden_size;
    EXPECT_TRUE(absl::IsInvalidArgument(StatusOf(json)));
    EXPECT_NE(StatusOf(json).message().find("head_dim"), std::string::npos);
  }
}

TEST(ConfigTest, UnsupportedFieldsAreUnimplemented) {
  nlohmann::json json = Good();
  json["architectures"] = {"GPT2LMHeadModel"};
  EXPECT_TRUE(absl::IsUnimplemented(StatusOf(json)));
  json = Good();
  json["hidden_act"] = "gelu";
  EXPECT_TRUE(absl::IsUnimplemented(StatusOf(json)));
  json = Good();
  json["rope_scaling"] = {{"type", "dynamic"}, {"factor", 2.0}};
  EXPECT_TRUE(absl::IsUnimplemented(StatusOf(json)));
  json = Good();
  json["architectures"] = {"MistralForCausalLM"};
  json["sliding_window"] = 1024;
  EXPECT_TRUE(absl::IsUnimplemented(StatusOf(json)));
}

// test_keys.py reads the same vectors.
TEST(ConfigTest, DigestsAreThoseOfTheOtherLanguages) {
  std::ifstream file(KDN_SOURCE_DIR "/tests/model/config_vectors.json");
  const auto vectors = nlohmann::json::parse(file, nullptr, false);
  ASSERT_GE(vectors.size(), 20u);
  for (const auto& vector : vectors) {
    const auto config = ParseConfig(vector["config"].dump());
    ASSERT_TRUE(config.ok()) << vector["name"] << ": " << config.status();
    EXPECT_EQ(config->digest, vector["config_digest"]) << vector["name"];
    EXPECT_EQ(ToModelSpec(*config, "", Dtype::kBf16, "w", "t").weights_digest,
              vector["weights_digest"])
        << vector["name"];
  }
}

std::string DigestOf(const nlohmann::json& json) {
  const auto config = ParseConfig(json.dump());
  return config.ok() ? config->digest : config.status().ToString();
}

TEST(ConfigTest, EveryFieldThatChangesKvChangesTheDigest) {
  const std::string good = DigestOf(Good());
  ASSERT_EQ(good.size(), 64u);
  for (const auto& [name, value] :
       std::map<std::string, nlohmann::json>{{"rms_norm_eps", 1e-5},
                                             {"attention_bias", true},
                                             {"intermediate_size", 64},
                                             {"num_attention_heads", 2},
                                             {"residual_multiplier", 0.5},
                                             {"logit_scale", nullptr}}) {
    nlohmann::json json = Good();
    json[name] = value;
    EXPECT_EQ(DigestOf(json) == good, value.is_null()) << name;
  }
  nlohmann::json json = Good();
  json["use_cache"] = false;
  json["_private"] = 1;
  EXPECT_EQ(DigestOf(json), good);
}

TEST(ConfigTest, AConfigThatIsNestedTooDeeplyIsRefused) {
  nlohmann::json json = Good();
  json["deep"] =
      nlohmann::json::parse(std::string(200, '[') + std::string(200, ']'));
  EXPECT_TRUE(absl::IsInvalidArgument(StatusOf(json)));
}

TEST(ConfigTest, AWindowThatAFamilyHasUnlessItSaysOtherwise) {
  nlohmann::json json = Good();
  json["architectures"] = {"MistralForCausalLM"};
  json.erase("max_position_embeddings");
  EXPECT_TRUE(absl::IsUnimplemented(StatusOf(json)));
  json["sliding_window"] = nullptr;
  EXPECT_TRUE(StatusOf(json).ok()) << StatusOf(json);
  json["layer_types"] = {"sliding_attention", "full_attention"};
  EXPECT_TRUE(absl::IsUnimplemented(StatusOf(json)));
}

TEST(ConfigTest, AnArchitectureOfAnotherTypeIsRefused) {
  nlohmann::json json = Good();
  json["model_type"] = "mistral";
  EXPECT_TRUE(absl::IsUnimplemented(StatusOf(json)));
}

TEST(ConfigTest, MutatedTextNeverCrashes) {
  const std::string good = Good().dump();
  std::mt19937 random(9);
  for (int i = 0; i < 3000; ++i) {
    std::string text = good;
    for (int edits = 0; edits < 3; ++edits) {
      text[random() % text.size()] = static_cast<char>(random() % 128);
    }
    ParseConfig(text).status().IgnoreError();
  }
}

}  // namespace
}  // namespace kdn::model
