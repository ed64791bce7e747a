#include "storage/disk_errors.h"

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace kdn::storage {
namespace {

// Empty: no remedy is known.
absl::string_view AdviceFor(int error) {
  switch (error) {
    case ENOSPC:
      return "the file system is full: free space, or set `disk` lower";
    case EDQUOT:
      return "the quota of the node's user is used up: raise it, or set `disk` "
             "lower";
    case EFBIG:
      return "the file system or `ulimit -f` bounds the size of files: raise "
             "the limit";
    case EIO:
      return "the disk fails: read the kernel's log and replace the disk";
    case EROFS:
      return "the file system is mounted read-only, often after an error of "
             "the disk: read the kernel's log";
    case EACCES:
    case EPERM:
      return "the node's user has no permission: give this user the directory";
    case EMFILE:
    case ENFILE:
      return "too many files are open: raise `ulimit -n`";
    case ENOSYS:
    case EOPNOTSUPP:
    case ENOLCK:
      return "the file system lacks an operation of the disk tier: choose a "
             "data_dir on a local file system";
    case ENOENT:
      return "the file or directory is gone: was data_dir deleted or "
             "unmounted?";
    default:
      return "";
  }
}

}  // namespace

absl::Status DiskError(int error, absl::string_view what) {
  const absl::string_view advice = AdviceFor(error);
  const std::string message =
      absl::StrCat(what, ": ", strerror(error), " (errno ", error, ")",
                   advice.empty() ? "" : "; ", advice);
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
    return absl::ResourceExhaustedError(message);
  }
  return absl::UnavailableError(message);
}

}  // namespace kdn::storage
