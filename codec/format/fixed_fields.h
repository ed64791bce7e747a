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
#include "codec/format/stream_layout.h"

namespace kdn::codec {

inline constexpr std::string_view kMagic = "KDNOBJ";
// The encoder writes kFormatVersion where K and V share streams, and
// kFormatVersionApart where they do not, so that older nodes can read such
// objects. Readers accept all versions from kFormatVersionOldest on.
inline constexpr uint16_t kFormatVersion = 4;
inline constexpr uint16_t kFormatVersionApart = 3;
inline constexpr uint16_t kFormatVersionOldest = 2;

// Offsets of the prefix's length and of its CRC. Magic, version, length and CRC
// have the same places in every version.
inline constexpr size_t kPrefixBytesOffset = 8;
inline constexpr size_t kCrcOffset = 12;

// Bytes of an index entry, and the offset of the stream's CRC in the entry.
inline constexpr size_t kEntryBytes = 24;
inline constexpr size_t kEntryCrcOffset = 12;

// The first 64 bytes of an object. They give the size of the rest of the
// prefix. docs/formats.md has their layout in all versions.
struct FixedFields {
  uint16_t version = kFormatVersionApart;
  uint64_t prefix_bytes = 0;
  uint32_t crc = 0;
  KvShape shape;
  LevelSet levels;
  size_t ns_bytes = 0;
  size_t variant_bytes = 0;
  // Version 2 only: the integers of the one RoPE descriptor.
  RopeSpec rope;
  // From version 3 on. Objects of version 2 have these defaults.
  size_t ropes = 1;  // distinct descriptors
  std::optional<uint32_t> depth;
  uint32_t sections_bytes = 0;
  // Version 4 only.
  int joint_heads = 0;

  StreamGrid grid() const { return {shape, joint_heads}; }
  // Offsets of the index entries and of the sections in the object.
  uint64_t entries_offset() const;
  uint64_t sections_offset() const;
  // The prefix_bytes that the other fields require.
  uint64_t expected_prefix_bytes() const;
};

// The CRC32C of a prefix without the four bytes that hold the CRC. REQUIRES: at
// least the 64 bytes of the fixed fields.
uint32_t PrefixCrc(absl::Span<const std::byte> prefix);

// The fields in the version that an encoder writes, without the CRC. REQUIRES:
// CheckHeader(header) is OK.
FixedFields FixedFieldsOf(const ObjectHeader& header);

// REQUIRES: the fields are from FixedFieldsOf and have the depth.
void WriteFixed(const FixedFields& fields, ByteWriter* out);
// UNIMPLEMENTED when the version is not one that this build reads. `bytes` is
// the prefix or a beginning of it; with the whole prefix, DATA_LOSS when the
// version is unknown and the CRC is wrong. DATA_LOSS, too, unless the magic is
// right, reserved bytes are zero, the geometry is within bounds, and
// prefix_bytes agrees with it. Allocates nothing.
absl::StatusOr<FixedFields> ReadFixed(absl::Span<const std::byte> bytes);

}  // namespace kdn::codec

#endif  // KDN_CODEC_FORMAT_FIXED_FIELDS_H_
