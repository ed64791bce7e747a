#ifndef KDN_STORAGE_RECORD_H_
#define KDN_STORAGE_RECORD_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kv/chunk_key.h"
#include "kv/ids.h"
#include "storage/object_info.h"

namespace kdn::storage {

// Records begin and end on pages of this size.
inline constexpr size_t kRecordPage = 4096;

// The name of an object on disk. A key alone is not enough: a chunk that is
// stored with two placements lies in two shards, as two objects.
using RecordKey = std::pair<ShardId, ChunkKey>;

// The page in front of every record. The page has the object's name, the page's
// own place and the payload's checksum. So the index can be rebuilt from the
// segments, and stale bytes are not taken for records. Layout: docs/formats.md,
// "Segments and index".
struct RecordHeader {
  enum class Kind : uint8_t { kObject = 1, kTombstone = 2 };

  Kind kind = Kind::kObject;
  uint64_t store_id = 0;  // of the directory, see StoreMarker
  uint32_t segment = 0;   // the file that the page was written to
  uint64_t offset = 0;    // the page's place in the file
  uint64_t sequence = 0;  // of the records of an object, the highest counts
  ShardId shard;
  ChunkKey key;
  std::string ns;
  ObjectVersion version;
  uint8_t levels = 0;
  uint64_t payload_bytes = 0;
  uint32_t payload_crc32c = 0;
  // As in ObjectInfo. Records of version 1 lack these three fields; they are
  // read with the default values.
  Durability durability = Durability::kReplicated;
  uint32_t depth = 0;
  // The end of the TTL on the wall clock, in microseconds since 1970: the wall
  // clock goes on over a restart. 0: no TTL.
  int64_t expiry_unix_us = 0;

  RecordKey record_key() const { return {shard, key}; }
  bool operator==(const RecordHeader&) const = default;
};

// The size of a record: header page and payload, in whole pages.
uint64_t RecordBytes(uint64_t payload_bytes);

// Writes version 2 of the format. REQUIRES: page.size() == kRecordPage,
// header.ns of a valid length, header.expiry_unix_us not negative.
void EncodeRecordHeader(const RecordHeader& header, absl::Span<std::byte> page);

// Reads versions 1 and 2. DATA_LOSS for a page that no writer of these versions
// makes.
absl::StatusOr<RecordHeader> DecodeRecordHeader(
    absl::Span<const std::byte> page);

// Convert between the header and the description of an object. `wall_offset` is
// the wall clock minus the monotonic clock at one moment, and converts
// expiries. HeaderOf leaves out the fields that the log fills in: store id,
// place, sequence and checksum.
ObjectInfo InfoOf(const RecordHeader& header, absl::Duration wall_offset);
RecordHeader HeaderOf(const ObjectInfo& info, absl::Duration wall_offset);

}  // namespace kdn::storage

#endif  // KDN_STORAGE_RECORD_H_
