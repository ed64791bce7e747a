#include "model/tokenizer.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <utility>

#include "model/tokenizer/unicode.h"

namespace kdn::model {
namespace {

const std::string kRecall = KDN_SOURCE_DIR "/model/recall";

constexpr char kWords[] = R"({"added_tokens":[{"id":3,"content":"<s>"}],
 "pre_tokenizer":{"type":"Whitespace"},
 "model":{"type":"WordLevel","vocab":{"[UNK]":0,"hello":1,"world":2},
          "unk_token":"[UNK]"}})";

using Ids = std::vector<int32_t>;

Tokenizer Parsed(const std::string& json) {
  auto tokenizer = Tokenizer::Parse(json);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status() << json;
  return *std::move(tokenizer);
}

TEST(TokenizerTest, WordLevelKnowsWholeWords) {
  const Tokenizer tokenizer = Parsed(kWords);
  EXPECT_EQ(*tokenizer.Encode("<s>hello  world, you"), (Ids{3, 1, 2, 0, 0}));
  EXPECT_EQ(*tokenizer.Decode({1, 2}), "hello world");
}

TEST(TokenizerTest, AWordWithoutATokenIsAnError) {
  const Tokenizer tokenizer =
      Parsed(R"({"model":{"type":"WordLevel","vocab":{"hello":1}}})");
  EXPECT_EQ(*tokenizer.Encode("hello"), Ids{1});
  const absl::Status status = tokenizer.Encode("world").status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_NE(status.message().find("'world'"), std::string::npos);
}

TEST(TokenizerTest, ByteLevelBpeGivesAnyTextBack) {
  const auto tokenizer = Tokenizer::Load(kRecall);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::mt19937 random(4);
  for (int i = 0; i < 500; ++i) {
    std::string text;
    for (uint32_t length = random() % 60; length > 0; --length) {
      AppendUtf8(random() % 4 == 0 ? random() % 0xd800 : 32 + random() % 90,
                 text);
    }
    const auto ids = tokenizer->Encode(text);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*tokenizer->Decode(*ids), text) << "seed 4";
  }
}

TEST(TokenizerTest, TextThatIsNotUtf8IsRefusedWithTheByte) {
  const Tokenizer tokenizer = Parsed(kWords);
  for (const char* text : {"hello\xff", "hello\xed\xa0\x80", "hello\xc0\xaf",
                           "hello\xf4\x90\x80\x80", "hello\xe2\x82"}) {
    const absl::Status status = tokenizer.Encode(text).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_NE(status.message().find("at byte 5"), std::string::npos) << status;
  }
}

TEST(TokenizerTest, EachTemplateWordIsOneToken) {
  const auto tokenizer = Tokenizer::Load(kRecall);
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ(tokenizer->Encode("<doc> The code of vault amber is 1009.")->size(),
            9u);
}

// Millions of pre-tokens or one long one take seconds if any step is quadratic
// in the length of the text, and hours if it is worse.
TEST(TokenizerTest, LongTextsOfOneCharacterTakeLinearTime) {
  const auto tokenizer = Tokenizer::Load(kRecall);
  ASSERT_TRUE(tokenizer.ok());
  for (const std::string unit : {"a", " ", "\n", "1", "<", "e\u0301", " a"}) {
    std::string text;
    while (text.size() < (1 << 20)) text += unit;
    const auto ids = tokenizer->Encode(text);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*tokenizer->Decode(*ids), text) << unit;
  }
}

TEST(TokenizerTest, ARegularExpressionWithoutEndIsAnError) {
  const Tokenizer tokenizer = Parsed(R"({"pre_tokenizer":{"type":"Split",
    "pattern":{"Regex":"(a|aa|aaa)+b"},"behavior":"Isolated"},
    "model":{"type":"WordLevel","vocab":{"[UNK]":0},"unk_token":"[UNK]"}})");
  EXPECT_EQ(*tokenizer.Encode("aab"), Ids{0});
  const absl::Status status = tokenizer.Encode(std::string(200, 'a')).status();
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
}

std::string WithPostProcessor(const std::string& post_processor) {
  return R"({"pre_tokenizer":{"type":"Whitespace"},
             "added_tokens":[{"id":7,"content":"<s>"},{"id":8,"content":"<t>"}],
             "model":{"type":"WordLevel","vocab":{"hello":1,"<s>":7,"<t>":8}},
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
    const Tokenizer tokenizer = Parsed(WithPostProcessor(json));
    EXPECT_EQ(*tokenizer.EncodeBeginning("hello"), (Ids{7, 8, 1}));
    EXPECT_EQ(*tokenizer.Encode("hello"), Ids{1});
    EXPECT_TRUE(tokenizer.EncodeBeginning("")->empty());
  }
  const Tokenizer none = Parsed(WithPostProcessor("null"));
  EXPECT_EQ(*none.EncodeBeginning("hello"), Ids{1});
}

TEST(TokenizerTest, ATextThatHasTheSpecialTokensDoesNotGetThemAgain) {
  const Tokenizer tokenizer =
      Parsed(WithPostProcessor(Template(kBosTextEos, "[7, 8]")));
  EXPECT_EQ(*tokenizer.EncodeBeginning("<s><t>hello"), (Ids{7, 8, 1}));
  EXPECT_EQ(*tokenizer.EncodeBeginning("<s> <t> hello"), (Ids{7, 8, 1}))
      << "the rule goes by tokens, not by characters";
  EXPECT_EQ(*tokenizer.EncodeBeginning("<s>hello"), (Ids{7, 8, 7, 1}))
      << "only a part of them";
  EXPECT_EQ(*tokenizer.EncodeBeginning("hello<s><t>"), (Ids{7, 8, 1, 7, 8}));
}

TEST(TokenizerTest, MalformedPostProcessorsAreNamed) {
  for (const std::string& json :
       {Template("[]", "[7]"), Template("7", "[7]"), Template("[{}]", "[7]"),
        Template(kBosTextEos, "[-1]"), Template(kBosTextEos, "7"),
        Template(R"([{"SpecialToken":{"id":"?"}}])", "[7]"), std::string("7"),
        std::string(R"({"type":"Sequence"})")}) {
    const auto status = Tokenizer::Parse(WithPostProcessor(json)).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << json << status;
    EXPECT_NE(status.message().find("post_processor"), std::string::npos);
  }
  for (const char* json : {"{}", R"({"type":"BertProcessing"})"}) {
    EXPECT_TRUE(absl::IsUnimplemented(
        Tokenizer::Parse(WithPostProcessor(json)).status()));
  }
}

// A file with one part, and a model of two words.
std::string With(const std::string& part) {
  return R"({"model":{"type":"WordLevel","vocab":{"a":0,"b":1}},)" + part + "}";
}

TEST(TokenizerTest, UnknownKindsAreNamed) {
  const std::pair<std::string, const char*> cases[] = {
      {R"({"model":{"type":"Unigram","vocab":[]}})", "Unigram"},
      {R"({"model":{"type":"WordPiece","vocab":{}}})", "WordPiece"},
      {R"({"model":{"type":"BPE","vocab":{},"merges":[],"dropout":0.1}})",
       "dropout"},
      {R"({"model":{"type":"BPE","vocab":{},"merges":[],
                    "end_of_word_suffix":"</w>"}})",
       "end_of_word_suffix"},
      {With(R"("normalizer":{"type":"Precompiled"})"), "Precompiled"},
      {With(R"("normalizer":{"type":"Sequence","normalizers":
               [{"type":"NFC"},{"type":"Nmt"}]})"),
       "normalizers[1]: type 'Nmt'"},
      {With(R"("pre_tokenizer":{"type":"UnicodeScripts"})"), "UnicodeScripts"},
      {With(R"("decoder":{"type":"CTC"})"), "CTC"}};
  for (const auto& [json, name] : cases) {
    const absl::Status status = Tokenizer::Parse(json).status();
    EXPECT_TRUE(absl::IsUnimplemented(status)) << json << status;
    EXPECT_NE(status.message().find(name), std::string::npos) << status;
  }
}

TEST(TokenizerTest, MalformedPartsAreNamed) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "parse error"},
      {"[]", "expected a JSON object"},
      {"{}", "model"},
      {R"({"model":{"type":"BPE"}})", "model.vocab"},
      {R"({"model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]}})",
       "'a' 'b'"},
      {R"({"model":{"type":"BPE","vocab":{"a":0},"merges":["a b c"]}})",
       "entry 0"},
      {With(R"("added_tokens":[{"id":1}])"), "added_tokens[0].content"},
      {With(R"("added_tokens":[{"id":-1,"content":"x"}])"),
       "added_tokens[0].id"},
      {With(R"("normalizer":{"type":"Replace","pattern":{"Regex":"("},
               "content":""})"),
       "normalizer.pattern"},
      {With(R"("pre_tokenizer":{"type":"Digits"})"),
       "pre_tokenizer.individual_digits"},
      {With(R"("pre_tokenizer":{"type":"Split","pattern":{"String":"a"},
               "behavior":"Doubled"})"),
       "'Doubled'"},
      {With(R"("pre_tokenizer":{"type":"Metaspace","replacement":"ab"})"),
       "pre_tokenizer.replacement"},
      {With(R"("decoder":{"type":"Strip","content":" ","start":1})"),
       "decoder.stop"}};
  for (const auto& [json, name] : cases) {
    const absl::Status status = Tokenizer::Parse(json).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << json << status;
    EXPECT_NE(status.message().find(name), std::string::npos) << status;
  }
}

TEST(TokenizerTest, DeeplyNestedSequencesAreRefused) {
  std::string nested = R"({"type":"NFC"})";
  for (int i = 0; i < 17; ++i) {
    nested = R"({"type":"Sequence","normalizers":[)" + nested + "]}";
  }
  EXPECT_TRUE(absl::IsInvalidArgument(
      Tokenizer::Parse(With(R"("normalizer":)" + nested)).status()));
}

TEST(TokenizerTest, MutatedFilesNeverCrash) {
  std::mt19937 random(6);
  for (int i = 0; i < 3000; ++i) {
    std::string text = kWords;
    for (int edits = 0; edits < 4; ++edits) {
      text[random() % text.size()] = static_cast<char>(random() % 128);
    }
    const auto tokenizer = Tokenizer::Parse(text);
    if (!tokenizer.ok()) continue;
    const auto ids = tokenizer->Encode("hello <s> x");
    if (ids.ok()) tokenizer->Decode(*ids).IgnoreError();
  }
}

}  // namespace
}  // namespace kdn::model
