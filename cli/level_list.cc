#include "cli/level_list.h"

#include <optional>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace kdn::cli {

absl::StatusOr<LevelSet> ParseLevelList(const std::string& text) {
  LevelSet levels;
  for (const std::string& name :
       static_cast<std::vector<std::string>>(absl::StrSplit(text, ','))) {
    const std::optional<Level> level = ParseLevel(name);
    if (!level) {
      return absl::InvalidArgumentError(absl::StrCat(
          "'", name, "' is not a level, expected some of ",
          absl::StrJoin(
              kLevelsByQuality, ", ",
              [](std::string* out, Level each) { out->append(Name(each)); }),
          ", separated by commas"));
    }
    levels = levels.With(*level);
  }
  return levels;
}

}  // namespace kdn::cli
