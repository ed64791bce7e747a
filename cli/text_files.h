#ifndef KDN_CLI_TEXT_FILES_H_
#define KDN_CLI_TEXT_FILES_H_

#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace kdn::cli {

// What is in the file. NOT_FOUND when it cannot be read.
absl::StatusOr<std::string> ReadText(const std::filesystem::path& path);

// The files named, and those below the directories named, in order of path.
// NOT_FOUND when there are none, or a directory cannot be listed.
absl::StatusOr<std::vector<std::filesystem::path>> FilesOf(
    const std::vector<std::string>& paths);

}  // namespace kdn::cli

#endif  // KDN_CLI_TEXT_FILES_H_
