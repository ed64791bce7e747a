#ifndef KDN_STORAGE_RECORD_H_
#define KDN_STORAGE_RECORD_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
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

  RecordKey record_key() const { return {shard, key}; }
  bool operator==(const RecordHeader&) const = default;
};

// Header page and payload, in whole pages.
uint64_t RecordBytes(uint64_t payload_bytes);

// REQUIRES: page.size() == kRecordPage, header.ns of a valid length.
void EncodeRecordHeader(const RecordHeader& header, absl::Span<std::byte> page);

// DATA_LOSS for anything EncodeRecordHeader does not write.
absl::StatusOr<RecordHeader> DecodeRecordHeader(
    absl::Span<const std::byte> page);

ObjectInfo InfoOf(const RecordHeader& header);

}  // namespace kdn::storage

#endif  // KDN_STORAGE_RECORD_H_
