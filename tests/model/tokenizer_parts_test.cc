// The parts of a tokenizer.json, each alone. The expected values are those of
// the tokenizers library; tests/model/tokenizers/ compares with the library
// itself.
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "model/tokenizer/added_tokens.h"
#include "model/tokenizer/decoder.h"
#include "model/tokenizer/normalizer.h"
#include "model/tokenizer/pre_tokenizer.h"
#include "model/tokenizer/token_model.h"
#include "model/tokenizer/token_trie.h"

namespace kdn::model {
namespace {

using Strings = std::vector<std::string>;
using Ids = std::vector<int32_t>;

Strings Pieces(const std::string& json, const std::string& text,
               bool at_front = true) {
  const auto pre_tokenizer = PreTokenizer::Parse(Json::parse(json));
  EXPECT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
  Strings pieces;
  EXPECT_TRUE(pre_tokenizer
                  ->Split({text, at_front},
                          [&](Piece piece) {
                            pieces.emplace_back(piece.text);
                            return absl::OkStatus();
                          })
                  .ok());
  return pieces;
}

std::string SplitAtDigits(const std::string& behavior, bool invert) {
  return R"({"type":"Split","pattern":{"Regex":"[0-9]"},"behavior":")" +
         behavior + R"(","invert":)" + (invert ? "true}" : "false}");
}

TEST(PreTokenizerTest, SplitKnowsEveryBehavior) {
  const struct {
    const char* behavior;
    bool invert;
    Strings pieces;
  } cases[] = {
      {"Removed", false, {"ab", "c"}},
      {"Removed", true, {"1", "2", "3", "4", "5"}},
      {"Isolated", false, {"1", "2", "ab", "3", "c", "4", "5"}},
      {"Isolated", true, {"1", "2", "ab", "3", "c", "4", "5"}},
      {"MergedWithPrevious", false, {"1", "2", "ab3", "c4", "5"}},
      {"MergedWithPrevious", true, {"1", "2ab", "3c", "4", "5"}},
      {"MergedWithNext", false, {"1", "2ab", "3c", "4", "5"}},
      {"MergedWithNext", true, {"1", "2", "ab3", "c4", "5"}},
      {"Contiguous", false, {"12", "ab", "3", "c", "45"}},
      {"Contiguous", true, {"12", "ab", "3", "c", "45"}},
  };
  for (const auto& one : cases) {
    EXPECT_EQ(Pieces(SplitAtDigits(one.behavior, one.invert), "12ab3c45"),
              one.pieces)
        << one.behavior << one.invert;
  }
}

TEST(PreTokenizerTest, ClassesAreThoseOfUnicode) {
  EXPECT_EQ(Pieces(R"({"type":"Digits","individual_digits":true})", "a12٣Ⅷ½b"),
            (Strings{"a", "1", "2", "٣", "Ⅷ", "½", "b"}));
  EXPECT_EQ(Pieces(R"({"type":"Digits","individual_digits":false})", "a12٣Ⅷ½b"),
            (Strings{"a", "12٣Ⅷ½", "b"}));
  EXPECT_EQ(Pieces(R"({"type":"Punctuation"})", "a,b+—c$"),
            (Strings{"a", ",", "b", "+", "—", "c", "$"}));
  EXPECT_EQ(Pieces(R"({"type":"Whitespace"})", "a_1 é,b\u3000ẞ!?"),
            (Strings{"a_1", "é", ",", "b", "ẞ", "!?"}));
  EXPECT_EQ(Pieces(R"({"type":"WhitespaceSplit"})", " a\u0085b\u3000c\u200bd"),
            (Strings{"a", "b", "c\u200bd"}));
  EXPECT_EQ(
      Pieces(R"({"type":"ByteLevel","add_prefix_space":true})", "don't  é 12"),
      (Strings{"Ġdon", "'t", "Ġ", "ĠÃ©", "Ġ12"}));
}

TEST(PreTokenizerTest, MetaspaceKnowsTheFrontOfTheInput) {
  const std::string begin = R"({"type":"Metaspace","replacement":"▁",)";
  const std::string always = begin + R"("prepend_scheme":"always"})";
  const std::string first =
      begin + R"("prepend_scheme":"first","split":false})";
  EXPECT_EQ(Pieces(always, "a  b"), (Strings{"▁a", "▁", "▁b"}));
  EXPECT_EQ(Pieces(always, " a", false), Strings{"▁a"});
  EXPECT_EQ(Pieces(first, "a  b"), Strings{"▁a▁▁b"});
  EXPECT_EQ(Pieces(first, "a  b", false), Strings{"a▁▁b"});
  EXPECT_EQ(Pieces(begin + R"("prepend_scheme":"never"})", "a b"),
            (Strings{"a", "▁b"}));
}

TEST(PreTokenizerTest, ASequenceSplitsThePiecesOfItsSteps) {
  EXPECT_EQ(Pieces(R"({"type":"Sequence","pretokenizers":[
                {"type":"WhitespaceSplit"},
                {"type":"Digits","individual_digits":true},
                {"type":"ByteLevel","use_regex":false}]})",
                   "a12 é"),
            (Strings{"a", "1", "2", "Ã©"}));
}

std::pair<std::string, bool> Normal(const std::string& json,
                                    const std::string& text) {
  const auto normalizer = Normalizer::Parse(Json::parse(json));
  EXPECT_TRUE(normalizer.ok()) << normalizer.status();
  NormalText normal{text, true};
  EXPECT_TRUE(normalizer->Apply(normal).ok());
  return {normal.text, normal.at_front};
}

TEST(NormalizerTest, NormalFormsAreThoseOfUnicode9) {
  EXPECT_EQ(Normal(R"({"type":"NFC"})", "e\u0301\u1100\u1161").first, "é가");
  EXPECT_EQ(Normal(R"({"type":"NFD"})", "é가").first, "e\u0301\u1100\u1161");
  EXPECT_EQ(Normal(R"({"type":"NFKC"})", "ﬁ①\u212b").first, "fi1\u00c5");
  EXPECT_EQ(Normal(R"({"type":"NFKD"})", "ﬁ\u00c5").first, "fiA\u030a");
  // Unicode 12.1 added U+32FF, with a decomposition.
  EXPECT_EQ(Normal(R"({"type":"NFKC"})", "\u32ff").first, "\u32ff");
}

TEST(NormalizerTest, StepsSayWhetherTheFrontIsStillThere) {
  using Result = std::pair<std::string, bool>;
  const char* strip =
      R"({"type":"Strip","strip_left":true,"strip_right":true})";
  EXPECT_EQ(Normal(strip, " \u3000a b\n"), Result("a b", false));
  EXPECT_EQ(Normal(strip, "a "), Result("a", true));
  EXPECT_EQ(Normal(strip, "  "), Result("", false));
  EXPECT_EQ(Normal(R"({"type":"Lowercase"})", "ΣAİ"),
            Result("σai\u0307", true));
  EXPECT_EQ(Normal(R"({"type":"StripAccents"})", "e\u0301"), Result("e", true));
  EXPECT_EQ(Normal(R"({"type":"StripAccents"})", "\u0301e"),
            Result("e", false));
  EXPECT_EQ(Normal(R"({"type":"Prepend","prepend":"▁"})", "a"),
            Result("▁a", true));
  EXPECT_EQ(Normal(R"({"type":"Prepend","prepend":"▁"})", ""),
            Result("", true));
  EXPECT_EQ(Normal(R"({"type":"Replace","pattern":{"String":" "},
                       "content":"▁"})",
                   " a b"),
            Result("▁a▁b", true));
  EXPECT_EQ(Normal(R"({"type":"Replace","pattern":{"Regex":"^\\d+"},
                       "content":""})",
                   "12a3"),
            Result("a3", false));
}

Vocabulary Words(const std::string& json) {
  const Json model = Json::parse(R"({"vocab":)" + json + "}");
  Fields fields(model, "model");
  auto vocabulary = Vocabulary::Parse(fields);
  EXPECT_TRUE(vocabulary.ok()) << vocabulary.status();
  return *std::move(vocabulary);
}

// The texts and ids into which one stage of added tokens cuts a text.
std::string CutOf(const std::string& tokens, const std::string& text,
                  AddedTokens::Stage stage = AddedTokens::Stage::kRaw,
                  const std::string& normalizer = "null") {
  const auto added =
      AddedTokens::Parse(Json::parse(tokens), Words(R"({"a":0,"b":1})"),
                         *Normalizer::Parse(Json::parse(normalizer)));
  EXPECT_TRUE(added.ok()) << added.status();
  std::string cut;
  EXPECT_TRUE(added
                  ->Cut(
                      stage, text,
                      [&](std::string_view part, bool) {
                        cut += "[" + std::string(part) + "]";
                        return absl::OkStatus();
                      },
                      [&](int32_t id) { cut += std::to_string(id); })
                  .ok());
  return cut;
}

std::string Raw(const std::string& content, const std::string& flags = "") {
  return R"({"id":0,"special":true,"content":")" + content + "\"" + flags + "}";
}

TEST(AddedTokensTest, TheLongestOfTheLeftmostIsFound) {
  const std::string tokens = "[" + Raw("<x") + "," + Raw("<x>") + "]";
  EXPECT_EQ(CutOf(tokens, "a<x>b<xc"), "[a]3[b]2[c]")
      << "the next free ids, whatever the file says";
  EXPECT_EQ(CutOf("[" + Raw("b") + "]", "abc"), "[a]1[c]")
      << "the id of the vocabulary";
}

TEST(AddedTokensTest, FlagsWidenOrDropAMatch) {
  EXPECT_EQ(CutOf("[" + Raw("<x>", R"(,"lstrip":true)") + "]", "a \u3000<x> b"),
            "[a]2[ b]");
  EXPECT_EQ(CutOf("[" + Raw("<x>", R"(,"rstrip":true)") + "]", "a <x> \n<x>"),
            "[a ]22");
  const std::string word = "[" + Raw("w", R"(,"single_word":true)") + "]";
  EXPECT_EQ(CutOf(word, "w.aw wé w"), "2[.aw wé ]2");
}

TEST(AddedTokensTest, NormalizedTokensAreFoundInNormalizedText) {
  const std::string tokens =
      R"([{"id":5,"content":"Ab"},{"id":6,"content":"cd","normalized":false}])";
  const std::string lower = R"({"type":"Lowercase"})";
  EXPECT_EQ(CutOf(tokens, "Abcd", AddedTokens::Stage::kRaw, lower), "[Ab]3");
  EXPECT_EQ(CutOf(tokens, "xab", AddedTokens::Stage::kNormalized, lower),
            "[x]2");
}

TEST(TokenTrieTest, FindsFromAnyByte) {
  TokenTrie trie;
  EXPECT_FALSE(trie.Find("abc", 0));
  trie.Add("ab", 1);
  trie.Add("abcd", 2);
  trie.Add("ab", 3);
  const auto match = trie.Find("xabc", 0);
  ASSERT_TRUE(match);
  EXPECT_EQ(match->begin, 1u);
  EXPECT_EQ(match->end, 3u);
  EXPECT_EQ(match->value, 1) << "the first value of a text stays";
  EXPECT_FALSE(trie.Find("xabc", 2));
  EXPECT_FALSE(trie.Find("xabc", 4));
}

absl::StatusOr<Ids> Tokens(const std::string& options,
                           const std::string& text) {
  const auto model = ParseTokenModel(Json::parse(
      R"({"vocab":{"a":0,"b":1,"c":2,"ab":3,"bc":4,"aa":5,"?":6,"<0xC3>":7,
                   "<0xA9>":8},
          "merges":["b c","a b",["a","a"]])" +
      options + "}"));
  if (!model.ok()) return model.status();
  Ids ids;
  if (absl::Status s = (*model)->Encode(text, ids); !s.ok()) return s;
  return ids;
}

TEST(BpeTest, EarlierMergesComeFirstAndLeftmostOfEquals) {
  EXPECT_EQ(*Tokens("", "abc"), (Ids{0, 4})) << "bc before ab";
  EXPECT_EQ(*Tokens("", "aaa"), (Ids{5, 0}));
  std::string text;
  Ids expected;
  for (int i = 0; i < 100; ++i) {  // more symbols than a quadratic merge takes
    text += "abcaaab";
    for (int32_t id : {0, 4, 5, 3}) expected.push_back(id);
  }
  EXPECT_EQ(*Tokens("", text), expected);
}

TEST(BpeTest, UnknownCharacters) {
  EXPECT_EQ(*Tokens("", "axxb"), Ids{3}) << "left out";
  EXPECT_EQ(*Tokens(R"(,"unk_token":"?")", "axxb"), (Ids{0, 6, 6, 1}));
  EXPECT_EQ(*Tokens(R"(,"unk_token":"?","fuse_unk":true)", "axxb"),
            (Ids{0, 6, 1}));
  EXPECT_EQ(*Tokens(R"(,"unk_token":"?","byte_fallback":true)", "éè"),
            (Ids{7, 8, 6}));
  EXPECT_TRUE(
      absl::IsInvalidArgument(Tokens(R"(,"unk_token":"!")", "axb").status()));
  EXPECT_EQ(*Tokens(R"(,"unk_token":"!")", "ab"), Ids{3});
}

TEST(BpeTest, WholePiecesMayComeBeforeMerges) {
  EXPECT_EQ(*Tokens(R"(,"ignore_merges":true)", "<0xC3>"), Ids{7});
  EXPECT_EQ(*Tokens(R"(,"ignore_merges":true)", "abc"), (Ids{0, 4}));
}

std::string Decoded(const std::string& json, Strings tokens) {
  const auto decoder = Decoder::Parse(Json::parse(json));
  EXPECT_TRUE(decoder.ok()) << decoder.status();
  return *decoder->Decode(std::move(tokens));
}

TEST(DecoderTest, EachKindJoinsInItsWay) {
  EXPECT_EQ(Decoded("null", {"a", "b"}), "a b");
  EXPECT_EQ(Decoded(R"({"type":"ByteLevel"})", {"Ġa", "Ã", "©", "b c", "Ã"}),
            " aéb c\ufffd");
  EXPECT_EQ(Decoded(R"({"type":"ByteFallback"})",
                    {"a", "<0xC3>", "<0xA9>", "<0xC3>x", "<0xC3>"}),
            "aé<0xC3>x\ufffd");
  EXPECT_EQ(Decoded(R"({"type":"Metaspace","replacement":"▁"})", {"▁a", "▁b▁"}),
            "a b ");
  EXPECT_EQ(Decoded(R"({"type":"Sequence","decoders":[
                {"type":"Replace","pattern":{"String":"▁"},"content":" "},
                {"type":"ByteFallback"},{"type":"Fuse"},
                {"type":"Strip","content":" ","start":1,"stop":0}]})",
                    {"▁▁a", "▁b"}),
            " a b");
}

}  // namespace
}  // namespace kdn::model
