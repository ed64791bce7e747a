#ifndef KDN_STORAGE_DISK_ERRORS_H_
#define KDN_STORAGE_DISK_ERRORS_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace kdn::storage {

// The error of a system call: what failed, the system's words, errno, and what
// the operator can do. RESOURCE_EXHAUSTED when the file system, a quota or the
// size of a file is the limit, UNAVAILABLE for everything else.
absl::Status DiskError(int error, absl::string_view what);

}  // namespace kdn::storage

#endif  // KDN_STORAGE_DISK_ERRORS_H_
