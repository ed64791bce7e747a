#ifndef KDN_CODEC_FORMAT_FIXED_FIELDS_H_
#define KDN_CODEC_FORMAT_FIXED_FIELDS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "codec/format/byte_io.h"
#include "codec/format/object.h"

namespace kdn::codec {

inline constexpr std::string_view kMagic = "KDNOBJ";
// What the encoder writes. Readers take this version and the one before it.
inline constexpr uint16_t kFormatVersion = 3;
inline constexpr uint16_t kFormatVersionOldest = 2;

// Of one stream in the index, and where the stream's CRC is in it.
inline constexpr size_t kEntryBytes = 24;
inline constexpr size_t kEntryCrcOffset = 12;

// The first 64 bytes of an object: what the size of the rest of the prefix
// follows from. docs/formats.md has their layout in either version.
struct FixedFields {
  uint16_t version = kFormatVersion;
  uint64_t prefix_bytes = 0;
  uint32_t crc = 0;
  KvShape shape;
  LevelSet levels;
  size_t ns_bytes = 0;
  size_t variant_bytes = 0;
  // In version 2 only: the integers of the one RoPE descriptor.
  RopeSpec rope;
  // In version 3 only.
  size_t ropes = 1;  // distinct descriptors
  std::optional<uint32_t> depth;
  uint32_t sections_bytes = 0;

  // Where the index begins, and the sections behind it.
  uint64_t entries_offset() const;
  uint64_t sections_offset() const;
  // What prefix_bytes has to be.
  uint64_t expected_prefix_bytes() const;
};

// As the encoder writes them. REQUIRES: CheckHeader(header) is OK.
FixedFields FixedFieldsOf(const ObjectHeader& header);

// REQUIRES: the fields are of kFormatVersion and say the depth.
void WriteFixed(const FixedFields& fields, ByteWriter* out);
// DATA_LOSS unless magic, version and reserved bytes are ours, the geometry is
// within bounds and the stated length agrees with it; nothing is allocated.
absl::StatusOr<FixedFields> ReadFixed(absl::Span<const std::byte> bytes);

}  // namespace kdn::codec

#endif  // KDN_CODEC_FORMAT_FIXED_FIELDS_H_
