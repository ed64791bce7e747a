#ifndef KDN_MODEL_TOKENIZER_PRE_TOKENIZER_H_
#define KDN_MODEL_TOKENIZER_PRE_TOKENIZER_H_

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "model/tokenizer/json_fields.h"
#include "model/tokenizer/pattern.h"

namespace kdn::model {

// A part of a text, and whether it begins with the first character of the whole
// input.
struct Piece {
  std::string_view text;
  bool at_front = false;
};

// The `pre_tokenizer` of a tokenizer.json: it splits a text into the pieces
// that the model turns into tokens. Immutable; thread-safe.
class PreTokenizer {
 public:
  using Visit = absl::FunctionRef<absl::Status(Piece)>;

  // Null gives a pre-tokenizer that does not split. INVALID_ARGUMENT names the
  // malformed part, UNIMPLEMENTED a kind that this code does not know.
  static absl::StatusOr<PreTokenizer> Parse(const Json& json);

  // Calls `visit` with the pieces of `piece`, in order; none is empty. Ends
  // with the first error of `visit` or of Pattern::Find.
  absl::Status Split(Piece piece, Visit visit) const;

 private:
  // Calls `visit` with the pieces into which one step splits a piece. The
  // pieces may be empty, and may lie in memory of the call.
  using Step = std::function<absl::Status(Piece, Visit)>;

  absl::Status Add(const Json& json, const std::string& path, int depth);
  absl::Status AddSequence(Fields& fields, int depth);
  absl::Status AddByteLevel(Fields& fields);
  absl::Status AddSplit(Fields& fields);
  absl::Status AddMetaspace(Fields& fields);
  absl::Status AddPunctuation(Fields& fields);
  void AddPattern(Pattern pattern, SplitBehavior behavior, bool invert = false);

  absl::Status RunFrom(size_t step, Piece piece, Visit visit) const;

  std::vector<Step> steps_;
};

}  // namespace kdn::model

#endif  // KDN_MODEL_TOKENIZER_PRE_TOKENIZER_H_
