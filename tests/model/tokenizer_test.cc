#include "model/tokenizer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <sstream>

namespace kdn::model {
namespace {

const std::string kRecall = KDN_SOURCE_DIR "/model/recall";

constexpr char kWords[] = R"({"added_tokens":[{"id":3,"content":"<s>"}],
 "pre_tokenizer":{"type":"Whitespace"},
 "model":{"type":"WordLevel","vocab":{"[UNK]":0,"hello":1,"world":2},
          "unk_token":"[UNK]"}})";

TEST(TokenizerTest, WordLevelKnowsWholeWords) {
  const auto tokenizer = Tokenizer::Parse(kWords);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(tokenizer->Encode("<s>hello  world, you"),
            (std::vector<int32_t>{3, 1, 2, 0, 0}));
  EXPECT_EQ(tokenizer->Decode({1, 2}), "hello world");
}

TEST(TokenizerTest, ByteLevelBpeGivesAnyBytesBack) {
  const auto tokenizer = Tokenizer::Load(kRecall);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::mt19937 random(4);
  for (int i = 0; i < 500; ++i) {
    std::string text;
    for (uint32_t length = random() % 60; length > 0; --length) {
      text += static_cast<char>(random() % 4 == 0 ? random() % 256
                                                  : 32 + random() % 90);
    }
    EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text)), text) << "seed 4";
  }
}

TEST(TokenizerTest, EachTemplateWordIsOneToken) {
  const auto tokenizer = Tokenizer::Load(kRecall);
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ(tokenizer->Encode("<doc> The code of vault amber is 1009.").size(),
            9u);
}

std::string WithPostProcessor(const std::string& post_processor) {
  return R"({"pre_tokenizer":{"type":"Whitespace"},
             "model":{"type":"WordLevel","vocab":{"hello":1}},
             "post_processor":)" +
         post_processor + "}";
}

std::string Template(const std::string& single, const std::string& ids) {
  return R"({"type":"TemplateProcessing","single":)" + single +
         R"(,"special_tokens":{"<s>":{"id":"<s>","ids":)" + ids + "}}}";
}

constexpr char kBosTextEos[] = R"([{"SpecialToken":{"id":"<s>","type_id":0}},
  {"Sequence":{"id":"A","type_id":0}},
  {"SpecialToken":{"id":"<s>","type_id":0}}])";

TEST(TokenizerTest, ATextThatBeginsAPromptGetsSpecialTokensInFront) {
  const std::string bos = Template(kBosTextEos, "[7, 8]");
  for (const std::string& json :
       {bos, R"({"type":"Sequence","processors":[{"type":"ByteLevel"},)" + bos +
                 "]}"}) {
    const auto tokenizer = Tokenizer::Parse(WithPostProcessor(json));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    EXPECT_EQ(tokenizer->EncodeBeginning("hello"),
              (std::vector<int32_t>{7, 8, 1}));
    EXPECT_EQ(tokenizer->Encode("hello"), std::vector<int32_t>{1});
    EXPECT_TRUE(tokenizer->EncodeBeginning("").empty());
  }
  const auto none = Tokenizer::Parse(WithPostProcessor("null"));
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(none->EncodeBeginning("hello"), std::vector<int32_t>{1});
}

TEST(TokenizerTest, MalformedPostProcessorsAreNamed) {
  for (const std::string& json :
       {Template("[]", "[7]"), Template("7", "[7]"), Template("[{}]", "[7]"),
        Template(kBosTextEos, "[-1]"), Template(kBosTextEos, "7"),
        Template(R"([{"SpecialToken":{"id":"?"}}])", "[7]"),
        std::string(R"({"type":"Sequence"})"),
        std::string(R"({"type":"Sequence","processors":[
          {"type":"Sequence","processors":[]}]})")}) {
    const auto status = Tokenizer::Parse(WithPostProcessor(json)).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << json << status;
    EXPECT_NE(status.message().find("post_processor"), std::string::npos);
  }
  for (const char* json : {"7", "{}", R"({"type":"BertProcessing"})"}) {
    EXPECT_TRUE(absl::IsUnimplemented(
        Tokenizer::Parse(WithPostProcessor(json)).status()));
  }
}

TEST(TokenizerTest, UnknownKindsAreNamed) {
  for (
      const char* json :
      {R"({"model":{"type":"Unigram","vocab":{}}})",
       R"({"normalizer":{"type":"Lowercase"},"model":{"type":"WordLevel","vocab":{}}})",
       R"({"pre_tokenizer":{"type":"Sequence","pretokenizers":[
           {"type":"Split","pattern":{"Regex":"[0-9]"},"behavior":"Isolated"},
           {"type":"ByteLevel","add_prefix_space":false,"use_regex":true}]},
           "model":{"type":"WordLevel","vocab":{}}})",
       R"({"pre_tokenizer":{"type":"Metaspace"},"model":{"type":"WordLevel","vocab":{}}})"}) {
    EXPECT_TRUE(absl::IsUnimplemented(Tokenizer::Parse(json).status())) << json;
  }
  for (const char* json : {"", "[]", "{}", R"({"model":{"type":"BPE"}})"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Tokenizer::Parse(json).status()))
        << json;
  }
}

TEST(TokenizerTest, MutatedFilesNeverCrash) {
  std::mt19937 random(6);
  for (int i = 0; i < 3000; ++i) {
    std::string text = kWords;
    for (int edits = 0; edits < 4; ++edits) {
      text[random() % text.size()] = static_cast<char>(random() % 128);
    }
    const auto tokenizer = Tokenizer::Parse(text);
    if (tokenizer.ok()) tokenizer->Decode(tokenizer->Encode("hello <s> x"));
  }
}

}  // namespace
}  // namespace kdn::model
