#ifndef KDN_STORAGE_DISK_ERRORS_H_
#define KDN_STORAGE_DISK_ERRORS_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace kdn::storage {

// The error of a failed system call. The message has `what` (the step that
// failed), the system's text, errno, and the remedy if a remedy is known.
// RESOURCE_EXHAUSTED when the file system is full or a quota or file size limit
// is reached, else UNAVAILABLE.
absl::Status DiskError(int error, absl::string_view what);

}  // namespace kdn::storage

#endif  // KDN_STORAGE_DISK_ERRORS_H_
