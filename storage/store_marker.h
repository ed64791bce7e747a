#ifndef KDN_STORAGE_STORE_MARKER_H_
#define KDN_STORAGE_STORE_MARKER_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kdn::storage {

// The content of the file STORE, which marks the directory of a disk tier. The
// process that has the directory's lock reads and replaces the file.
struct StoreMarker {
  uint64_t store_id = 0;  // random; a record of another store is no record here
  uint64_t epoch = 0;     // the number of starts so far

  bool operator==(const StoreMarker&) const = default;
};

// Nullopt: the directory has no such file. FAILED_PRECONDITION: the file is not
// a marker. UNAVAILABLE: the file cannot be read. The caller must not replace
// it then, because with a new store id no record would count.
absl::StatusOr<std::optional<StoreMarker>> ReadStoreMarker(
    const std::string& directory);

// Replaces the file as a whole: after a kill or a power loss at any moment, the
// old or the new marker is there.
absl::Status WriteStoreMarker(const std::string& directory,
                              const StoreMarker& marker);

// The names in the directory survive a power loss once this returns.
absl::Status SyncDirectory(const std::string& directory);

}  // namespace kdn::storage

#endif  // KDN_STORAGE_STORE_MARKER_H_
