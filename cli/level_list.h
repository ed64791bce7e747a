#ifndef KDN_CLI_LEVEL_LIST_H_
#define KDN_CLI_LEVEL_LIST_H_

#include <string>

#include "absl/status/statusor.h"
#include "kv/level.h"

namespace kdn::cli {

// Parses a list such as "lossless,base+1". INVALID_ARGUMENT names the word that
// is not a level, and lists the levels.
absl::StatusOr<LevelSet> ParseLevelList(const std::string& text);

}  // namespace kdn::cli

#endif  // KDN_CLI_LEVEL_LIST_H_
