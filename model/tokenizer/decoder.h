#ifndef KDN_MODEL_TOKENIZER_DECODER_H_
#define KDN_MODEL_TOKENIZER_DECODER_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/tokenizer/json_fields.h"

namespace kdn::model {

// The `decoder` of a tokenizer.json: it turns the texts of tokens into one
// text. Immutable; thread-safe.
class Decoder {
 public:
  // Null gives a decoder that puts a space between any two tokens.
  // INVALID_ARGUMENT names the malformed part, UNIMPLEMENTED a kind that this
  // code does not know.
  static absl::StatusOr<Decoder> Parse(const Json& json);

  absl::StatusOr<std::string> Decode(std::vector<std::string> tokens) const;

 private:
  using Step = std::function<absl::Status(std::vector<std::string>&)>;

  absl::Status Add(const Json& json, const std::string& path, int depth);
  absl::Status AddSequence(Fields& fields, int depth);
  absl::Status AddReplace(Fields& fields);
  absl::Status AddStrip(Fields& fields);
  absl::Status AddMetaspace(Fields& fields);

  bool joins_with_spaces_ = false;
  std::vector<Step> steps_;
};

}  // namespace kdn::model

#endif  // KDN_MODEL_TOKENIZER_DECODER_H_
