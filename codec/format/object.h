#ifndef KDN_CODEC_FORMAT_OBJECT_H_
#define KDN_CODEC_FORMAT_OBJECT_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "codec/format/sections.h"
#include "kv/calibration_id.h"
#include "kv/chunk_key.h"
#include "kv/ids.h"
#include "kv/kv_view.h"
#include "kv/level.h"

namespace kdn::codec {

// An object is the encoded bytes of a chunk:
//
//   header | index | sections | streams
//
// There is one stream per (level, layer, K|V, group of KV heads); K and V may
// share one. The index has the offset, length, CRC32C and measured error of
// each. The streams of one
// (layer, level) lie back to back, K before V, so that one read gets a whole
// layer of a level. The header has everything that the chunk's key is computed
// from, so that a reader can tell which chunk the object is. Byte layout:
// docs/formats.md.

using kdn::CalibrationId;

// The decoded header.
struct ObjectHeader {
  ChunkIdentity identity;
  KvShape shape;
  // The RoPE of K in every layer, unless layer_ropes is set.
  RopeSpec rope;
  // Absolute position of each token when the engine computed its KV.
  std::vector<int32_t> positions;
  // Includes the levels that its levels refine.
  LevelSet levels;
  // The calibration that the transform-coded levels were coded with.
  CalibrationId calibration = {};
  // The number of chunks before this one in its chain. Unset for objects of
  // version 2, which do not have it.
  std::optional<uint32_t> depth = 0;
  // The RoPE of K in each layer; the first is `rope`. Empty when all layers
  // have the same.
  std::vector<RopeSpec> layer_ropes = {};
  // In ascending order of ids. The header of a parsed object has no critical
  // section.
  std::vector<Section> sections = {};
  // The heads whose K and V share a stream at the transform-coded levels;
  // divides kv_heads. 0: K and V have streams of their own, and all tokens are
  // of one class, as in objects of versions 2 and 3.
  int joint_heads = 0;
};

// The key of the chunk that the object is. An object of version 2, which does
// not state its depth, has the key of the first chunk of a group.
inline ChunkKey KeyOf(const ObjectHeader& header) {
  return KeyOf(header.identity, header.depth.value_or(0));
}

struct StreamId {
  Level level = Level::kLossless;
  int layer = 0;
  KvPart part = KvPart::kK;
  int head_group = 0;  // heads that share the stream, see HeadsPerStream
  bool operator==(const StreamId&) const = default;
};

struct StreamEntry {
  uint64_t offset = 0;  // from the first byte of the object
  uint32_t bytes = 0;
  uint32_t crc32c = 0;
  // The largest absolute difference of a decoded element to the engine's, and
  // the root of the mean square of all differences. The encoder measures them
  // by decoding the stream, with the levels that it refines, at the positions
  // where the KV was computed.
  float error_max = 0.0f;
  float error_rms = 0.0f;
  bool operator==(const StreamEntry&) const = default;
};

struct ByteRange {
  uint64_t offset = 0;
  uint64_t bytes = 0;
  bool operator==(const ByteRange&) const = default;
};

// A parsed and validated header and index. Owns its decoded fields; does not
// refer to the object's bytes.
class ObjectIndex {
 public:
  // Parses the header and index of an object. `prefix` is the first bytes of
  // the object and may be longer than header and index; `object_bytes` is the
  // size of the whole object. DATA_LOSS, naming what is wrong, unless magic,
  // version, checksum, bounds and stream lengths are exactly as an encoder of
  // versions 2 to 4 writes them. UNIMPLEMENTED when the version is another one,
  // or a section is critical: the object is not damaged, but only another
  // reader can decode it.
  static absl::StatusOr<ObjectIndex> Parse(absl::Span<const std::byte> prefix,
                                           uint64_t object_bytes);
  // Bytes of header, index and sections, read from the first kFixedPrefixBytes
  // of an object. DATA_LOSS if these are not the beginning of an object, and
  // UNIMPLEMENTED if the version is another one.
  static constexpr size_t kFixedPrefixBytes = 64;
  static absl::StatusOr<uint64_t> PrefixBytes(
      absl::Span<const std::byte> fixed_prefix);

  const ObjectHeader& header() const { return header_; }
  const ChunkKey& key() const { return key_; }
  ObjectVersion version() const { return version_; }
  uint64_t prefix_bytes() const { return prefix_bytes_; }
  uint64_t object_bytes() const { return object_bytes_; }

  // REQUIRES: the level is in header().levels, the rest inside header().shape.
  const StreamEntry& Entry(const StreamId& id) const;
  // The byte ranges that a partial read fetches to deliver heads [head_begin,
  // head_end) of one layer at `level`: the streams of each level of
  // LadderTo(level), K before V, adjacent streams merged, without padding. Each
  // level takes at most one range for all heads, and at most two ranges for
  // fewer heads. No heads take no range. A head group that is partly in the
  // slice is included whole. REQUIRES: as for Entry.
  std::vector<ByteRange> LayerRanges(Level level, int layer, int head_begin,
                                     int head_end) const;
  // The sum of the bytes of LayerRanges.
  uint64_t LayerBytes(Level level, int layer, int head_begin,
                      int head_end) const;

 private:
  ObjectIndex(ObjectHeader header, std::vector<StreamEntry> entries);

  ObjectHeader header_;
  ChunkKey key_;
  ObjectVersion version_;
  uint64_t prefix_bytes_ = 0;
  uint64_t object_bytes_ = 0;
  std::vector<StreamEntry> entries_;
};

// DATA_LOSS, naming the stream, unless `bytes` and `crc32c` are those of the
// stream's index entry.
absl::Status VerifyChecksum(const ObjectIndex& index, const StreamId& id,
                            size_t bytes, uint32_t crc32c);

// The same for the stream's `bytes`; computes their CRC.
absl::Status VerifyStream(const ObjectIndex& index, const StreamId& id,
                          absl::Span<const std::byte> bytes);

// Verifies every stream of a whole object. DATA_LOSS naming the first bad one.
absl::Status VerifyObject(const ObjectIndex& index,
                          absl::Span<const std::byte> object);

}  // namespace kdn::codec

#endif  // KDN_CODEC_FORMAT_OBJECT_H_
