#ifndef KDN_CLI_TEXT_FILES_H_
#define KDN_CLI_TEXT_FILES_H_

#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace kdn::cli {

// The contents of the file. NOT_FOUND when it cannot be read.
absl::StatusOr<std::string> ReadText(const std::filesystem::path& path);

// The directory where scripts/ put what they fetch.
std::filesystem::path CacheDirectory();

// The files among `paths`, and all files below the directories among `paths`
// (sorted by path within a directory). NOT_FOUND when there are no files or a
// directory cannot be listed.
absl::StatusOr<std::vector<std::filesystem::path>> FilesOf(
    const std::vector<std::string>& paths);

}  // namespace kdn::cli

#endif  // KDN_CLI_TEXT_FILES_H_
