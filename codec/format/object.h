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
#include "kv/chunk_key.h"
#include "kv/ids.h"
#include "kv/kv_view.h"
#include "kv/level.h"

namespace kdn::codec {

// An object is the encoded bytes of a chunk:
//
//   header | index | sections | streams
//
// One stream per (level, layer, K|V, group of KV heads), each with its offset,
// length, CRC32C and measured error in the index. The streams of one (layer,
// level) lie back to back, K before V, so that a whole layer of a level is one
// read. The
// header is self-describing and carries everything the chunk's key is made of,
// so that an object proves its own identity. Byte layout: docs/formats.md. All
// of it is little-endian and bounded before it is believed.

// Names a calibration by its content; zero: none was needed.
using CalibrationId = Digest<struct CalibrationIdTag>;

// What the header says, decoded.
struct ObjectHeader {
  ChunkIdentity identity;
  PlacementKey placement;
  KvShape shape;
  // How K turns: in every layer, unless layer_ropes is there.
  RopeSpec rope;
  // Absolute position of each token when the engine computed its KV.
  std::vector<int32_t> positions;
  // Every level's refined ones are there too.
  LevelSet levels;
  // What the transform-coded levels were coded with.
  CalibrationId calibration = {};
  // The number of chunks before this one in its chain. Objects of version 2 do
  // not say.
  std::optional<uint32_t> depth = 0;
  // How K turns in each layer, where not all layers turn alike; else empty. The
  // first is `rope`.
  std::vector<RopeSpec> layer_ropes = {};
  // By ascending id. An object that was read has none that is critical.
  std::vector<Section> sections = {};
};

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
  // Measured when it was encoded, decoding what was written at the positions
  // where it was computed, with the levels it refines: the largest difference
  // to an element of the engine's, and the root of their mean square.
  float error_max = 0.0f;
  float error_rms = 0.0f;
  bool operator==(const StreamEntry&) const = default;
};

struct ByteRange {
  uint64_t offset = 0;
  uint64_t bytes = 0;
  bool operator==(const ByteRange&) const = default;
};

// A parsed and validated header and index. Owns its decoded fields; refers to
// no object bytes.
class ObjectIndex {
 public:
  // Parses the header and index of an object. `prefix` is its first bytes and
  // may be longer than header and index; `object_bytes` is the whole object's
  // size. DATA_LOSS (naming what is wrong) for anything not exactly as this
  // code or the code of version 2 writes it: magic, version, checksum, bounds,
  // stream lengths, key. UNIMPLEMENTED, naming its id, when a section is
  // critical: the object is whole, but a newer reader has to decode it.
  static absl::StatusOr<ObjectIndex> Parse(absl::Span<const std::byte> prefix,
                                           uint64_t object_bytes);
  // Bytes of header plus index, read from the first kFixedPrefixBytes of an
  // object; DATA_LOSS if they are no such thing.
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
  // Where one layer of a slice lies, for each level that delivering `level`
  // takes in the order (K, V), adjacent streams merged: what a partial read
  // fetches. Exactly the streams' bytes, no padding: a range a level for all
  // heads, two for fewer, none for no head. Groups that are only partly in the
  // slice come whole. REQUIRES as for Entry.
  std::vector<ByteRange> LayerRanges(Level level, int layer, int head_begin,
                                     int head_end) const;
  // Of all of them together.
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

// DATA_LOSS with the stream's name unless `bytes` and `crc32c` are those of its
// entry.
absl::Status VerifyChecksum(const ObjectIndex& index, const StreamId& id,
                            size_t bytes, uint32_t crc32c);

// The same, computing the CRC of `bytes`.
absl::Status VerifyStream(const ObjectIndex& index, const StreamId& id,
                          absl::Span<const std::byte> bytes);

// Verifies every stream of a whole object. DATA_LOSS naming the first bad one.
absl::Status VerifyObject(const ObjectIndex& index,
                          absl::Span<const std::byte> object);

}  // namespace kdn::codec

#endif  // KDN_CODEC_FORMAT_OBJECT_H_
