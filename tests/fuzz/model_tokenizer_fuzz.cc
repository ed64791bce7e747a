// The input is a tokenizer.json, a zero byte, and a text to encode.

#include <algorithm>
#include <string_view>

#include "kv/check.h"
#include "model/tokenizer.h"
#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string input(reinterpret_cast<const char*>(data), size);
  const size_t cut = input.find('\0');
  const auto tokenizer = kdn::model::Tokenizer::Parse(input.substr(0, cut));
  if (!tokenizer.ok()) {
    KDN_CHECK(absl::IsInvalidArgument(tokenizer.status()) ||
                  absl::IsUnimplemented(tokenizer.status()),
              "a bad file is a typed error");
    return 0;
  }
  const std::string_view text = cut == std::string::npos
                                    ? std::string_view(input)
                                    : std::string_view(input).substr(cut + 1);
  const auto ids = tokenizer->Encode(text);
  const auto beginning = tokenizer->EncodeBeginning(text);
  KDN_CHECK(ids.ok() == beginning.ok(), "both encode the same texts");
  if (!ids.ok()) {
    KDN_CHECK(absl::IsInvalidArgument(ids.status()) ||
                  absl::IsResourceExhausted(ids.status()),
              "a text that cannot be encoded is a typed error");
    return 0;
  }
  KDN_CHECK(*tokenizer->Encode(text) == *ids, "encoding is a function");
  KDN_CHECK(beginning->size() >= ids->size() &&
                std::equal(ids->rbegin(), ids->rend(), beginning->rbegin()),
            "the beginning of a prompt ends with the tokens of the text");
  for (int32_t id : *ids) {
    KDN_CHECK(id >= 0 && id < tokenizer->vocab_size(),
              "every id is in the vocabulary");
  }
  tokenizer->Decode(*ids).IgnoreError();
  tokenizer->Decode({-1, tokenizer->vocab_size(), 1 << 30}).IgnoreError();
  return 0;
}

namespace kdn::fuzz {

std::vector<std::string> Seeds() {
  constexpr char kWords[] = R"({
    "added_tokens": [{"id": 3, "content": "<s>", "special": true}],
    "pre_tokenizer": {"type": "Whitespace"},
    "model": {"type": "WordLevel", "unk_token": "[UNK]",
              "vocab": {"[UNK]": 0, "the": 1, "vault": 2, "<s>": 3}}})";
  constexpr char kBpe[] = R"({
    "added_tokens": [{"id": 4, "content": "<doc>", "special": true}],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false,
                      "use_regex": true},
    "decoder": {"type": "ByteLevel"},
    "post_processor": {"type": "Sequence", "processors": [
      {"type": "ByteLevel"},
      {"type": "TemplateProcessing",
       "single": [{"SpecialToken": {"id": "<doc>", "type_id": 0}},
                  {"Sequence": {"id": "A", "type_id": 0}}],
       "special_tokens": {"<doc>": {"id": "<doc>", "ids": [4]}}}]},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "\u0120": 3,
              "<doc>": 4}, "merges": ["a b"]}})";
  constexpr char kMetaspace[] = R"({
    "added_tokens": [{"id": 0, "content": "<unk>", "special": true},
                     {"id": 9, "content": "ab", "single_word": true,
                      "lstrip": true, "rstrip": true, "normalized": true}],
    "normalizer": {"type": "Sequence", "normalizers": [
      {"type": "NFKC"}, {"type": "StripAccents"}, {"type": "Lowercase"},
      {"type": "Strip", "strip_left": true, "strip_right": false},
      {"type": "Replace", "pattern": {"String": "v"}, "content": "b"},
      {"type": "Prepend", "prepend": "\u2581"}]},
    "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581",
                      "prepend_scheme": "first", "split": true},
    "decoder": {"type": "Sequence", "decoders": [
      {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
      {"type": "ByteFallback"}, {"type": "Fuse"},
      {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true,
              "byte_fallback": true, "ignore_merges": true,
              "vocab": {"<unk>": 0, "a": 1, "b": 2, "ab": 3, "<0xE2>": 4,
                        "\u2581": 5}, "merges": [["a", "b"]]}})";
  constexpr char kSplits[] = R"({
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
      {"type": "Digits", "individual_digits": true},
      {"type": "Punctuation", "behavior": "Contiguous"},
      {"type": "WhitespaceSplit"},
      {"type": "Split", "pattern": {"Regex": "\\p{L}{1,2}|\\s*"},
       "behavior": "MergedWithNext", "invert": false},
      {"type": "Split", "pattern": {"String": "a"},
       "behavior": "MergedWithPrevious", "invert": true}]},
    "model": {"type": "WordLevel", "unk_token": "a", "vocab": {"a": 0}}})";
  std::vector<std::string> seeds;
  for (const char* json : {kWords, kBpe, kMetaspace, kSplits}) {
    for (const char* text : {"<s>the vault ab", "a\xff\xc3(\xe2\x82 b <doc>",
                             " 12.5 ab e\u0301\u00e9\u4e00 <unk>  v"}) {
      seeds.push_back(std::string(json) + '\0' + text);
    }
  }
  return seeds;
}

}  // namespace kdn::fuzz
