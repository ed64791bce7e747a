#ifndef KDN_STORAGE_STORE_MARKER_H_
#define KDN_STORAGE_STORE_MARKER_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kdn::storage {

// The file STORE of a disk tier's directory: says that the directory is one,
// which one, and how often it has been opened. A value; whoever holds the
// directory's lock reads and replaces it.
struct StoreMarker {
  uint64_t store_id = 0;  // random: records of another store never count
  uint64_t epoch = 0;     // starts so far

  bool operator==(const StoreMarker&) const = default;
};

// Nullopt when there is none; FAILED_PRECONDITION when it is something else's;
// UNAVAILABLE when it cannot be told, for a new one would disown every record.
absl::StatusOr<std::optional<StoreMarker>> ReadStoreMarker(
    const std::string& directory);

// Replaces it as a whole: after a kill or a power loss at any moment the old
// one or the new one is there.
absl::Status WriteStoreMarker(const std::string& directory,
                              const StoreMarker& marker);

// Names created in the directory survive power loss once this returns.
absl::Status SyncDirectory(const std::string& directory);

}  // namespace kdn::storage

#endif  // KDN_STORAGE_STORE_MARKER_H_
