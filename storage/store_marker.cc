#include "storage/store_marker.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "storage/disk_errors.h"

namespace kdn::storage {
namespace {

constexpr char kName[] = "/STORE";
// The number is the version of the records. A build that does not know it
// leaves the directory alone. Directories of version 1 can be read.
constexpr char kMagic[] = "kdn-store-2";
constexpr char kMagicBefore[] = "kdn-store-1";
constexpr size_t kTextMax = 256;  // more than the magic and two numbers take

// After this, the content of the file or directory survives a power loss.
absl::Status SyncPath(const std::string& path, int flags) {
  const int fd = open(path.c_str(), flags | O_CLOEXEC);
  if (fd < 0) return DiskError(errno, absl::StrCat("opening ", path));
  absl::Status status;
  if (fsync(fd) != 0) status = DiskError(errno, absl::StrCat("syncing ", path));
  close(fd);
  return status;
}

// Replaces what is at `path` by a new file of the owner alone, and syncs the
// file: without the sync, a power loss after the rename could leave an empty
// file, and no record of the store would count.
absl::Status WriteNewFile(const std::string& path, const std::string& text) {
  // A link or a pipe at this path is nothing of ours: it is not written to.
  if (unlink(path.c_str()) != 0 && errno != ENOENT) {
    return DiskError(errno, absl::StrCat("removing ", path));
  }
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
                      S_IRUSR | S_IWUSR);
  if (fd < 0) return DiskError(errno, absl::StrCat("opening ", path));
  absl::Status status;
  if (write(fd, text.data(), text.size()) !=
      static_cast<ssize_t>(text.size())) {
    status = DiskError(errno, absl::StrCat("writing ", path));
  } else if (fsync(fd) != 0) {
    status = DiskError(errno, absl::StrCat("syncing ", path));
  }
  close(fd);
  return status;
}

}  // namespace

absl::StatusOr<std::optional<StoreMarker>> ReadStoreMarker(
    const std::string& directory) {
  const std::string path = directory + kName;
  const int fd =
      open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0 && errno == ENOENT) return std::nullopt;
  if (fd < 0) return DiskError(errno, absl::StrCat("opening ", path));
  char text[kTextMax];
  const ssize_t bytes = read(fd, text, sizeof(text));
  absl::Status status;
  if (bytes < 0) status = DiskError(errno, absl::StrCat("reading ", path));
  close(fd);
  if (!status.ok()) return status;
  std::istringstream file(std::string(text, static_cast<size_t>(bytes)));
  std::string magic;
  StoreMarker marker;
  if (!(file >> magic >> marker.store_id >> marker.epoch) ||
      (magic != kMagic && magic != kMagicBefore)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is not the marker of a disk tier (", kMagic,
                     "): move this directory away or choose another data_dir"));
  }
  return marker;
}

absl::Status WriteStoreMarker(const std::string& directory,
                              const StoreMarker& marker) {
  const std::string path = directory + kName;
  const std::string fresh = path + ".new";
  if (absl::Status status = WriteNewFile(
          fresh,
          absl::StrCat(kMagic, " ", marker.store_id, " ", marker.epoch, "\n"));
      !status.ok()) {
    return status;
  }
  if (rename(fresh.c_str(), path.c_str()) != 0) {
    return DiskError(errno, absl::StrCat("renaming to ", path));
  }
  return SyncDirectory(directory);
}

absl::Status SyncDirectory(const std::string& directory) {
  return SyncPath(directory, O_RDONLY | O_DIRECTORY);
}

}  // namespace kdn::storage
