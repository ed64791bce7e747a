#ifndef KDN_MODEL_TOKENIZER_REGEX_H_
#define KDN_MODEL_TOKENIZER_REGEX_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

struct re_pattern_buffer;  // Oniguruma's compiled expression

namespace kdn::model {

// A compiled regular expression of Oniguruma, in Oniguruma's own syntax: the
// tokenizers library uses the same. Immutable; thread-safe.
class Regex {
 public:
  // INVALID_ARGUMENT says what is wrong with the pattern.
  static absl::StatusOr<Regex> Compile(const std::string& pattern);

  // Calls `visit` with the begin and the end of every match, from left to
  // right. Matches do not overlap. An empty match directly behind another match
  // is left out. RESOURCE_EXHAUSTED when a match takes too many steps.
  // REQUIRES: `text` is valid UTF-8.
  absl::Status ForEachMatch(
      std::string_view text,
      absl::FunctionRef<void(size_t begin, size_t end)> visit) const;

 private:
  explicit Regex(std::shared_ptr<re_pattern_buffer> code)
      : code_(std::move(code)) {}
  std::shared_ptr<re_pattern_buffer> code_;
};

}  // namespace kdn::model

#endif  // KDN_MODEL_TOKENIZER_REGEX_H_
