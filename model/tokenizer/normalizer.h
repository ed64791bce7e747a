#ifndef KDN_MODEL_TOKENIZER_NORMALIZER_H_
#define KDN_MODEL_TOKENIZER_NORMALIZER_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/tokenizer/json_fields.h"

namespace kdn::model {

// A text, and whether its first character is the first character of the whole
// input: Metaspace asks for that.
struct NormalText {
  std::string text;
  bool at_front = false;
};

// The `normalizer` of a tokenizer.json: it changes a text before the text is
// split. Immutable; thread-safe.
class Normalizer {
 public:
  // Null gives a normalizer that changes nothing. INVALID_ARGUMENT names the
  // malformed part, UNIMPLEMENTED a kind that this code does not know.
  static absl::StatusOr<Normalizer> Parse(const Json& json);

  // REQUIRES: the text is valid UTF-8. Errors are those of Pattern::Find.
  absl::Status Apply(NormalText& text) const;

 private:
  using Step = std::function<absl::Status(NormalText&)>;

  absl::Status Add(const Json& json, const std::string& path, int depth);
  absl::Status AddSequence(Fields& fields, int depth);
  absl::Status AddReplace(Fields& fields);
  absl::Status AddPrepend(Fields& fields);
  absl::Status AddStrip(Fields& fields);

  std::vector<Step> steps_;
};

}  // namespace kdn::model

#endif  // KDN_MODEL_TOKENIZER_NORMALIZER_H_
