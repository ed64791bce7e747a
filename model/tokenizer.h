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
// tokenizer.json, with the results of the tokenizers library. It knows the
// parts that models like Llama, Mistral, Qwen, SmolLM, DeepSeek and Phi use;
// their code is in model/tokenizer/. Settings for truncation and padding are
// ignored. Immutable; thread-safe.
class Tokenizer {
 public:
  // Parses the text of a tokenizer.json. INVALID_ARGUMENT names the malformed
  // part; UNIMPLEMENTED names a part that this code does not know.
  static absl::StatusOr<Tokenizer> Parse(const std::string& json);
  // Reads the tokenizer.json of a checkpoint directory.
  static absl::StatusOr<Tokenizer> Load(const std::string& directory);

  // The token ids of a text. INVALID_ARGUMENT when the text is not UTF-8, or
  // has a word for which the file has no token; RESOURCE_EXHAUSTED when a
  // regular expression of the file takes too many steps.
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text) const;
  // Encodes a text that begins a prompt: the special tokens (BOS) that the file
  // puts in front, then the tokens of Encode. A text that begins with these
  // tokens already, as the result of a chat template does, does not get them
  // again. Empty if Encode gives no tokens.
  absl::StatusOr<std::vector<int32_t>> EncodeBeginning(
      std::string_view text) const;
  // The text of token ids. Special tokens are written out; ids outside the
  // vocabulary are left out. Bytes that are not UTF-8 become U+FFFD.
  // RESOURCE_EXHAUSTED as in Encode.
  absl::StatusOr<std::string> Decode(const std::vector<int32_t>& ids) const;

  // One more than the largest id.
  int vocab_size() const;

 private:
  struct Parts;

  explicit Tokenizer(std::shared_ptr<const Parts> parts);
  static absl::StatusOr<std::shared_ptr<const Parts>> ParseParts(
      const std::string& text);
  std::shared_ptr<const Parts> parts_;
};

}  // namespace kdn::model

#endif  // KDN_MODEL_TOKENIZER_H_
