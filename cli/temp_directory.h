#ifndef KDN_CLI_TEMP_DIRECTORY_H_
#define KDN_CLI_TEMP_DIRECTORY_H_

#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace kdn::cli {

// A directory that is removed with all that is in it: when this goes, or when
// SIGINT, SIGTERM or SIGHUP ends the program. Movable.
class TempDirectory {
 public:
  // Makes one in `parent`, its name beginning with `prefix`. UNAVAILABLE. The
  // first one blocks those signals in the calling thread, for a thread of its
  // own to take: call it before other threads are made.
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
  // It stays, whatever happens.
  void Keep();

 private:
  explicit TempDirectory(std::string path) : path_(std::move(path)) {}
  std::string path_;  // empty: nothing to remove
};

}  // namespace kdn::cli

#endif  // KDN_CLI_TEMP_DIRECTORY_H_
