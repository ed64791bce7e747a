#include "model/tokenizer/regex.h"

#include <oniguruma.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "model/tokenizer/unicode.h"

namespace kdn::model {
namespace {

// A match may go back this often, plus kRetriesPerByte times for each byte of
// the text. The patterns of tokenizers go back at most once per byte.
constexpr unsigned long kRetriesMin = 10'000'000;
constexpr unsigned long kRetriesPerByte = 8;

const UChar* Bytes(const char* text) {
  return reinterpret_cast<const UChar*>(text);
}

std::string MessageOf(int error, OnigErrorInfo* info) {
  UChar text[ONIG_MAX_ERROR_MESSAGE_LEN];
  const int size = onig_error_code_to_str(text, error, info);
  return std::string(reinterpret_cast<const char*>(text),
                     static_cast<size_t>(size));
}

struct FreeRegion {
  void operator()(OnigRegion* region) const { onig_region_free(region, 1); }
};
using Region = std::unique_ptr<OnigRegion, FreeRegion>;

struct FreeLimits {
  void operator()(OnigMatchParam* limits) const {
    onig_free_match_param(limits);
  }
};
using Limits = std::unique_ptr<OnigMatchParam, FreeLimits>;

Limits LimitsFor(std::string_view text) {
  Limits limits(onig_new_match_param());
  onig_set_retry_limit_in_match_of_match_param(
      limits.get(), kRetriesMin + kRetriesPerByte * text.size());
  return limits;
}

}  // namespace

absl::StatusOr<Regex> Regex::Compile(const std::string& pattern) {
  OnigEncoding encoding = ONIG_ENCODING_UTF8;
  static const int initialized = onig_initialize(&encoding, 1);
  if (initialized != ONIG_NORMAL) {
    return absl::InternalError("Oniguruma cannot be initialized");
  }
  OnigRegex code = nullptr;
  OnigErrorInfo info;
  const int error = onig_new(
      &code, Bytes(pattern.data()), Bytes(pattern.data() + pattern.size()),
      ONIG_OPTION_NONE, ONIG_ENCODING_UTF8, ONIG_SYNTAX_DEFAULT, &info);
  if (error != ONIG_NORMAL) {
    return absl::InvalidArgumentError(
        absl::StrCat("the regular expression '", pattern,
                     "' is invalid: ", MessageOf(error, &info)));
  }
  return Regex(std::shared_ptr<re_pattern_buffer>(code, &onig_free));
}

absl::Status Regex::ForEachMatch(
    std::string_view text,
    absl::FunctionRef<void(size_t begin, size_t end)> visit) const {
  const Region region(onig_region_new());
  const Limits limits = LimitsFor(text);
  const UChar* begin = Bytes(text.data());
  const UChar* end = begin + text.size();
  size_t last_end = std::string_view::npos;
  for (size_t at = 0; at <= text.size();) {
    const int found =
        onig_search_with_param(code_.get(), begin, end, begin + at, end,
                               region.get(), ONIG_OPTION_NONE, limits.get());
    if (found == ONIG_MISMATCH) break;
    if (found < 0) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the text cannot be split behind byte ", at, ": ",
                       MessageOf(found, nullptr)));
    }
    const auto from = static_cast<size_t>(region->beg[0]);
    const auto to = static_cast<size_t>(region->end[0]);
    if (from == to && to == last_end) {
      if (at == text.size()) break;
      NextCodePoint(text, at);
      continue;
    }
    visit(from, to);
    at = last_end = to;
  }
  return absl::OkStatus();
}

}  // namespace kdn::model
