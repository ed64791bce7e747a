#ifndef KDN_MODEL_TOKENIZER_TOKEN_MODEL_H_
#define KDN_MODEL_TOKENIZER_TOKEN_MODEL_H_

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/tokenizer/json_fields.h"
#include "model/tokenizer/vocabulary.h"

namespace kdn::model {

// The `model` of a tokenizer.json: it turns a piece of text into tokens.
// Immutable; thread-safe.
class TokenModel {
 public:
  virtual ~TokenModel() = default;

  // Appends the ids of one piece. INVALID_ARGUMENT when the piece has a part
  // that is not in the vocabulary and the file has no token for unknown parts.
  virtual absl::Status Encode(std::string_view piece,
                              std::vector<int32_t>& ids) const = 0;
  virtual const Vocabulary& vocabulary() const = 0;
};

// INVALID_ARGUMENT names the malformed part, UNIMPLEMENTED a kind of model that
// this code does not know: it knows BPE and WordLevel.
absl::StatusOr<std::unique_ptr<TokenModel>> ParseTokenModel(const Json& json);

}  // namespace kdn::model

#endif  // KDN_MODEL_TOKENIZER_TOKEN_MODEL_H_
