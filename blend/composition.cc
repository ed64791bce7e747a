#include "blend/composition.h"

#include "absl/strings/str_cat.h"

namespace kdn::blend {

absl::Status Composition::Validate() const {
  int end = 0;
  int exact_end = 0;
  for (const Part& part : parts) {
    if (part.begin != end || part.end <= part.begin) {
      return absl::InvalidArgumentError(
          absl::StrCat("a part of tokens ", part.begin, " to ", part.end,
                       " behind one that ends at ", end));
    }
    if (part.exact && exact_end != part.begin) {
      return absl::InvalidArgumentError(
          absl::StrCat("the part of tokens ", part.begin, " to ", part.end,
                       " cannot be exact behind a part that is not"));
    }
    end = part.end;
    if (part.exact) exact_end = end;
  }
  if (end == 0 || static_cast<size_t>(end) != tokens.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the parts end at token ", end, " of ", tokens.size(), " tokens"));
  }
  if (prefix < 0 || prefix > exact_end) {
    return absl::InvalidArgumentError(
        absl::StrCat("a prefix of ", prefix, " tokens, but only ", exact_end,
                     " tokens are exact"));
  }
  return absl::OkStatus();
}

std::vector<int> Composition::Inexact() const {
  std::vector<int> rows;
  for (const Part& part : parts) {
    if (part.exact) continue;
    for (int token = part.begin; token < part.end; ++token) {
      rows.push_back(token);
    }
  }
  return rows;
}

}  // namespace kdn::blend
