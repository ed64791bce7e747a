// The input is a tokenizer.json, a zero byte, and a text to encode.

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
  const std::vector<int32_t> ids = tokenizer->Encode(text);
  KDN_CHECK(tokenizer->Encode(text) == ids, "encoding is a function");
  KDN_CHECK(tokenizer->EncodeBeginning(text).size() >= ids.size(),
            "the beginning of a prompt has the tokens of the text and more");
  tokenizer->Decode(ids);
  tokenizer->Decode({-1, tokenizer->vocab_size(), 1 << 30});
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
  std::vector<std::string> seeds;
  for (const char* json : {kWords, kBpe}) {
    for (const char* text : {"<s>the vault ab", "a\xff\xc3(\xe2\x82 b <doc>"}) {
      seeds.push_back(std::string(json) + '\0' + text);
    }
  }
  return seeds;
}

}  // namespace kdn::fuzz
