#ifndef KDN_MODEL_TOKENIZER_PATTERN_H_
#define KDN_MODEL_TOKENIZER_PATTERN_H_

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "model/tokenizer/json_fields.h"
#include "model/tokenizer/regex.h"

namespace kdn::model {

// A part of a text, as byte offsets.
struct Span {
  size_t begin = 0;
  size_t end = 0;
  bool match = false;  // the pattern matches this part
};

// What a tokenizer searches for in a text: a fixed text, a regular expression,
// or every code point of a class. Immutable; thread-safe.
class Pattern {
 public:
  using Class = bool (*)(char32_t);

  // REQUIRES: `text` is not empty.
  explicit Pattern(std::string text) : what_(std::move(text)) {}
  explicit Pattern(Regex regex) : what_(std::move(regex)) {}
  explicit Pattern(Class characters) : what_(characters) {}
  // Reads {"String": text} or {"Regex": expression} in the field `pattern`.
  static absl::StatusOr<Pattern> Parse(Fields& fields);

  // Sets `spans` to the parts of `text`, in order: every match is a part, and
  // so is every text between two matches. Errors are those of Regex.
  absl::Status Find(std::string_view text, std::vector<Span>& spans) const;

 private:
  std::variant<std::string, Regex, Class> what_;
};

// What becomes of the matches when a text is split at them.
enum class SplitBehavior {
  kRemoved,             // they are left out
  kIsolated,            // each is a piece of its own
  kMergedWithPrevious,  // each ends the piece before it
  kMergedWithNext,      // each begins the piece behind it
  kContiguous,          // neighbouring matches form one piece
};

// Reads the field `behavior`.
absl::StatusOr<SplitBehavior> ParseSplitBehavior(Fields& fields);

// Turns the parts that a pattern has found into pieces, in place. With
// `invert`, the texts between the matches count as the matches. Pieces may be
// empty.
void Cut(SplitBehavior behavior, bool invert, std::vector<Span>& spans);

}  // namespace kdn::model

#endif  // KDN_MODEL_TOKENIZER_PATTERN_H_
