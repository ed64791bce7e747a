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

// Everything in a segment file is whole pages.
inline constexpr size_t kRecordPage = 4096;

// What a record is filed under. A key alone is not enough: stored with two
// placements it lies under two shards, as two objects.
using RecordKey = std::pair<ShardId, ChunkKey>;

// The page in front of every record: names the object, its place and its
// checksum, so that the index can be rebuilt from the segments and stale bytes
// never count. Layout: docs/formats.md, "Segments and index".
struct RecordHeader {
  enum class Kind : uint8_t { kObject = 1, kTombstone = 2 };

  Kind kind = Kind::kObject;
  uint64_t store_id = 0;  // of the directory
  uint32_t segment = 0;   // the file it was written to ...
  uint64_t offset = 0;    // ... and where: a moved page is no record
  uint64_t sequence = 0;  // of two records of a key the higher holds
  ShardId shard;
  ChunkKey key;
  std::string ns;
  ObjectVersion version;
  uint8_t levels = 0;
  uint64_t payload_bytes = 0;
  uint32_t payload_crc32c = 0;
  // As in ObjectInfo. Version 1 of the format lacks these four: they have the
  // values below.
  Durability durability = Durability::kReplicated;
  PlacementKey placement;
  uint32_t depth = 0;
  // The end of the TTL on the wall clock, in microseconds since 1970, so that
  // a restart does not lose the TTL. 0: no TTL.
  int64_t expiry_unix_us = 0;

  RecordKey record_key() const { return {shard, key}; }
  bool operator==(const RecordHeader&) const = default;
};

// Header page and payload, in whole pages.
uint64_t RecordBytes(uint64_t payload_bytes);

// Writes version 2 of the format. REQUIRES: page.size() == kRecordPage,
// header.ns of a valid length, header.expiry_unix_us not negative.
void EncodeRecordHeader(const RecordHeader& header, absl::Span<std::byte> page);

// Reads versions 1 and 2. DATA_LOSS for anything that no writer of these
// versions writes.
absl::StatusOr<RecordHeader> DecodeRecordHeader(
    absl::Span<const std::byte> page);

// What the header says of its object, and the reverse. `wall_offset` is the
// wall clock minus the monotonic clock, both read at the same moment: it
// converts expiries. HeaderOf leaves out what only the log knows: place,
// sequence and checksum.
ObjectInfo InfoOf(const RecordHeader& header, absl::Duration wall_offset);
RecordHeader HeaderOf(const ObjectInfo& info, absl::Duration wall_offset);

}  // namespace kdn::storage

#endif  // KDN_STORAGE_RECORD_H_
