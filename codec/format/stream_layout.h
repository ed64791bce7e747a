#ifndef KDN_CODEC_FORMAT_STREAM_LAYOUT_H_
#define KDN_CODEC_FORMAT_STREAM_LAYOUT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "codec/format/object.h"

namespace kdn::codec {

// The order of streams, in one place. In the index: level, layer, part, head.
// In the file: layer, level, part, head, because an encoder sees one layer at a
// time and may not know a stream's length before. The streams of one (layer,
// level) are a group: back to back, its start aligned to kGroupAlignment, so
// that a whole layer of one level is a single read.
inline constexpr uint64_t kGroupAlignment = 64;
inline constexpr std::array<Level, kLevelCount> kLevels = {
    Level::kLossless, Level::kInt8, Level::kBase, Level::kBase1, Level::kBase2};

constexpr uint64_t AlignUp(uint64_t offset) {
  return (offset + kGroupAlignment - 1) / kGroupAlignment * kGroupAlignment;
}

// Most dimensions that the transform of one stream may have.
inline constexpr int kTransformDimMax = 256;

constexpr bool IsTransformCoded(Level level) { return level >= Level::kBase; }
// Whether some level of the set is.
bool HasTransformCoded(LevelSet levels);

// Steps of the longest ladder: base, base+1, base+2.
inline constexpr int kLadderSteps = 3;
// The levels whose streams delivering `level` takes, in decoding order: those
// it refines, then itself.
absl::Span<const Level> LadderTo(Level level);

// Heads that share a stream. A transform-coded stream joins small heads, up to
// 128 dimensions: it costs some 130 bytes of its own, and heads of a layer
// resemble each other. Any other stream is of one head. Divides kv_heads.
int HeadsPerStream(int kv_heads, int head_dim, Level level);
inline int HeadsPerStream(const KvShape& shape, KvPart part, Level level) {
  return HeadsPerStream(shape.kv_heads, shape.dim(part), level);
}

// One (layer, level).
struct StreamGroup {
  int layer = 0;
  Level level = Level::kLossless;
};

std::string Name(const StreamId& id);

// Levels of the set, in index order.
std::vector<Level> LevelsOf(LevelSet levels);
size_t StreamCount(const KvShape& shape, LevelSet levels);
// Place of a stream in the index. REQUIRES: the stream exists.
size_t SlotOf(const KvShape& shape, LevelSet levels, const StreamId& id);

// Groups of an object, in file order.
std::vector<StreamGroup> GroupsOf(const KvShape& shape, LevelSet levels);
// Streams that hold some of heads [head_begin, head_end), in file order.
std::vector<StreamId> StreamsOf(const KvShape& shape, const StreamGroup& group,
                                int head_begin, int head_end);
// All of them.
inline std::vector<StreamId> StreamsOf(const KvShape& shape,
                                       const StreamGroup& group) {
  return StreamsOf(shape, group, 0, shape.kv_heads);
}

}  // namespace kdn::codec

#endif  // KDN_CODEC_FORMAT_STREAM_LAYOUT_H_
