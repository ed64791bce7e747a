#ifndef KDN_MODEL_TOKENIZER_H_
#define KDN_MODEL_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace kdn::model {

// Converts text to token ids and back, by the rules of a Hugging Face
// tokenizer.json: byte-level BPE (with the splitting patterns of GPT-2, Llama 3
// or Qwen2) or whole words (WordLevel). Special tokens are matched first.
// Immutable; thread-safe.
class Tokenizer {
 public:
  // Parses the text of a tokenizer.json. INVALID_ARGUMENT names the malformed
  // part; UNIMPLEMENTED names a kind of model, normalizer or pre-tokenizer that
  // this code does not know.
  static absl::StatusOr<Tokenizer> Parse(const std::string& json);
  // Reads the tokenizer.json of a checkpoint directory.
  static absl::StatusOr<Tokenizer> Load(const std::string& directory);

  // The token ids of a text, which may be any bytes. With WordLevel, a word
  // outside the vocabulary becomes the unknown token, or is left out if the
  // file names no unknown token.
  std::vector<int32_t> Encode(std::string_view text) const;
  // Encodes a text that begins a prompt: the special tokens (BOS) that the file
  // puts in front, then the tokens of Encode. Empty if Encode gives no tokens.
  std::vector<int32_t> EncodeBeginning(std::string_view text) const;
  // The text of token ids. Special tokens are written out; ids outside the
  // vocabulary are left out.
  std::string Decode(const std::vector<int32_t>& ids) const;

  int vocab_size() const;

  struct Rules;

 private:
  explicit Tokenizer(std::shared_ptr<const Rules> rules);
  std::shared_ptr<const Rules> rules_;
};

}  // namespace kdn::model

#endif  // KDN_MODEL_TOKENIZER_H_
