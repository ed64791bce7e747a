#ifndef KDN_STORAGE_NEW_FILE_H_
#define KDN_STORAGE_NEW_FILE_H_

#include <sys/types.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace kdn::storage {

// A file that appears whole or not at all. Its bytes are on disk beside the
// path, under another name, until Commit. The destructor removes what was not
// committed. Movable.
class NewFile {
 public:
  // Writes and syncs the bytes. The umask takes its bits from `mode`.
  // UNAVAILABLE, naming the path and the reason, when that fails; then nothing
  // is left.
  static absl::StatusOr<NewFile> Write(const std::string& path,
                                       absl::string_view bytes,
                                       mode_t mode = 0666);
  // Creates or replaces the file at the path: a reader of the path sees the old
  // file or the whole new one. UNAVAILABLE as above. REQUIRES: the first call.
  absl::Status Commit();

  ~NewFile();
  NewFile(NewFile&& other) noexcept { *this = std::move(other); }
  NewFile& operator=(NewFile&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(fresh_, other.fresh_);
    return *this;
  }

 private:
  explicit NewFile(const std::string& path);
  absl::Status Fill(absl::string_view bytes, mode_t mode);

  std::string path_;
  std::string fresh_;  // the name until Commit; empty: nothing to remove
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_NEW_FILE_H_
