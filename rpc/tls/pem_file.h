#ifndef KDN_RPC_TLS_PEM_FILE_H_
#define KDN_RPC_TLS_PEM_FILE_H_

#include <string>

#include "absl/status/statusor.h"

namespace kdn::rpc {

// Who may have access to a file.
enum class FileAccess { kAnybody, kOwnerAndGroup };

// The contents of a file of at most 1 MiB. NOT_FOUND if there is no such file;
// PERMISSION_DENIED if it cannot be read, or if users have access that
// `allowed` leaves out; INVALID_ARGUMENT if it is no regular file or is larger.
// Errors name the file.
absl::StatusOr<std::string> ReadPemFile(const std::string& path,
                                        FileAccess allowed);

}  // namespace kdn::rpc

#endif  // KDN_RPC_TLS_PEM_FILE_H_
