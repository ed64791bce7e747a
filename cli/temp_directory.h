#ifndef KDN_CLI_TEMP_DIRECTORY_H_
#define KDN_CLI_TEMP_DIRECTORY_H_

#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace kdn::cli {

// A directory that is removed with its contents when this object is destroyed,
// or when SIGINT, SIGTERM or SIGHUP ends the program. Movable.
class TempDirectory {
 public:
  // Makes a directory in `parent` whose name begins with `prefix`. UNAVAILABLE
  // when that fails. The first call starts a thread that waits for the three
  // signals and blocks them in the calling thread. REQUIRES: the first call
  // comes before other threads are started.
  static absl::StatusOr<TempDirectory> Create(const std::string& parent,
                                              const std::string& prefix);

  TempDirectory() = default;
  ~TempDirectory();
  TempDirectory(TempDirectory&& other) noexcept { *this = std::move(other); }
  TempDirectory& operator=(TempDirectory&& other) noexcept {
    std::swap(path_, other.path_);
    return *this;
  }

  const std::string& path() const { return path_; }
  // The directory is no longer removed.
  void Keep();

 private:
  explicit TempDirectory(std::string path) : path_(std::move(path)) {}
  std::string path_;  // empty: nothing to remove
};

}  // namespace kdn::cli

#endif  // KDN_CLI_TEMP_DIRECTORY_H_
