#ifndef KDN_TRANSFER_CALIBRATION_SHELF_H_
#define KDN_TRANSFER_CALIBRATION_SHELF_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "codec/calibration/calibration.h"
#include "codec/format/object.h"
#include "kv/model_spec.h"

namespace kdn::transfer {

using CalibrationBytes = std::shared_ptr<const std::vector<std::byte>>;

// The calibrations that a node has, as the bytes that other nodes get and as
// what its codec uses. With a directory, each is a file there and outlives the
// node; without one, the bytes lie in memory. A calibration is never removed,
// because objects may name it. Thread-safe; every call may wait for the disk.
class CalibrationShelf {
 public:
  struct Options {
    std::string directory = "";  // empty: none
    // What Keep accepts in all.
    size_t count_max = 256;
    uint64_t bytes_max = 256u << 20;
  };
  struct Entry {
    codec::CalibrationId id;
    ModelFingerprint model;
    absl::Time created;
    uint64_t bytes = 0;
  };

  // `set` gets every calibration that is kept. Not owned.
  CalibrationShelf(Options options, codec::CalibrationSet* set)
      : options_(std::move(options)), set_(set) {}

  // Makes the directory and takes the files in it. A file that is damaged is
  // logged and left out: this node gets the calibration again from a peer.
  // UNAVAILABLE, naming the directory, when it cannot be made or read.
  absl::Status Open();
  // Keeps a calibration of a client; with a directory, its file is on disk when
  // this returns. No effect if the calibration is kept already. DATA_LOSS or
  // INVALID_ARGUMENT for bytes that are not a calibration (see
  // codec::ParseCalibration), or that were made long after `now`;
  // RESOURCE_EXHAUSTED, naming the limit, when there is no room; UNAVAILABLE
  // when the file cannot be written. Nothing has changed then.
  absl::StatusOr<Entry> Keep(std::vector<std::byte> bytes, absl::Time now);
  // The same for bytes that came from a peer: DATA_LOSS too when the id of the
  // calibration is not `id`.
  absl::StatusOr<Entry> KeepAs(const codec::CalibrationId& id,
                               std::vector<std::byte> bytes);
  // Keep without the limits, for a calibration that is in this node's
  // configuration.
  absl::StatusOr<Entry> KeepConfigured(std::vector<std::byte> bytes);

  // The bytes of a calibration's file. NOT_FOUND when it is not kept.
  absl::StatusOr<CalibrationBytes> BytesOf(
      const codec::CalibrationId& id) const;
  // By id.
  std::vector<Entry> entries() const;
  uint64_t bytes_max() const { return options_.bytes_max; }

 private:
  struct Kept {
    Entry entry;
    CalibrationBytes bytes;  // null: in the file
  };

  std::string PathOf(const codec::CalibrationId& id) const;
  absl::Status CheckRoom(uint64_t bytes) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<Entry> Add(std::vector<std::byte> bytes, bool limited,
                            bool on_disk);

  const Options options_;
  codec::CalibrationSet* const set_;
  mutable absl::Mutex mutex_;
  std::map<codec::CalibrationId, Kept> kept_ ABSL_GUARDED_BY(mutex_);
  uint64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace kdn::transfer

#endif  // KDN_TRANSFER_CALIBRATION_SHELF_H_
