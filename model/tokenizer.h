#ifndef KDN_MODEL_TOKENIZER_H_
#define KDN_MODEL_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace kdn::model {

// Text to token ids and back, as a Hugging Face tokenizer.json says: byte-level
// BPE (GPT-2's and Llama-3's or Qwen2's splitting patterns) or whole words
// (WordLevel). Special tokens are matched before anything else. Immutable;
// thread-safe.
class Tokenizer {
 public:
  // Parses the text of a tokenizer.json. INVALID_ARGUMENT naming what is
  // malformed, UNIMPLEMENTED naming a kind of model, normalizer or
  // pre-tokenizer this code does not know.
  static absl::StatusOr<Tokenizer> Parse(const std::string& json);
  // Reads tokenizer.json of a checkpoint directory.
  static absl::StatusOr<Tokenizer> Load(const std::string& directory);

  // Any bytes may come in; what is not UTF-8 is split byte by byte. A WordLevel
  // word outside the vocabulary becomes the unknown token, or nothing where the
  // file names none.
  std::vector<int32_t> Encode(std::string_view text) const;
  // The same with the special tokens (BOS) in front that the file puts before a
  // text that begins a prompt. Nothing where the text encodes to nothing.
  std::vector<int32_t> EncodeBeginning(std::string_view text) const;
  // Ids outside the vocabulary become nothing. Special tokens are written out.
  std::string Decode(const std::vector<int32_t>& ids) const;

  int vocab_size() const;

  struct Rules;

 private:
  explicit Tokenizer(std::shared_ptr<const Rules> rules);
  std::shared_ptr<const Rules> rules_;
};

}  // namespace kdn::model

#endif  // KDN_MODEL_TOKENIZER_H_
