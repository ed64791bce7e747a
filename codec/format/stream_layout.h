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

// The order of streams. Index entries are ordered by level, layer, part, head
// group. Streams in the file are ordered by layer, level, part, head group,
// because an encoder gets one layer at a time and does not know the lengths of
// later streams. The streams of one (layer, level) are a StreamGroup: they lie
// back to back from a multiple of kGroupAlignment on, so that one read gets a
// whole layer of one level.
inline constexpr uint64_t kGroupAlignment = 64;
inline constexpr std::array<Level, kLevelCount> kLevels = {
    Level::kLossless, Level::kInt8, Level::kBase, Level::kBase1, Level::kBase2};

constexpr uint64_t AlignUp(uint64_t offset) {
  return (offset + kGroupAlignment - 1) / kGroupAlignment * kGroupAlignment;
}

// The largest number of dimensions that the transform of a stream may have.
inline constexpr int kTransformDimMax = 256;

constexpr bool IsTransformCoded(Level level) { return level >= Level::kBase; }
// Whether a level of the set is transform-coded.
bool HasTransformCoded(LevelSet levels);

// Steps of the longest ladder: base, base+1, base+2.
inline constexpr int kLadderSteps = 3;
// The levels whose streams are needed to deliver `level`, in decoding order:
// the levels that it refines, then `level` itself.
absl::Span<const Level> LadderTo(Level level);

// The number of heads that share a stream; divides kv_heads. A transform-coded
// stream joins heads up to 128 dimensions, because each stream costs some 130
// bytes and because the heads of a layer resemble each other. All other streams
// have one head.
int HeadsPerStream(int kv_heads, int head_dim, Level level);
inline int HeadsPerStream(const KvShape& shape, KvPart part, Level level) {
  return HeadsPerStream(shape.kv_heads, shape.dim(part), level);
}

// The streams of one (layer, level).
struct StreamGroup {
  int layer = 0;
  Level level = Level::kLossless;
};

std::string Name(const StreamId& id);

// Levels of the set, in index order.
std::vector<Level> LevelsOf(LevelSet levels);
size_t StreamCount(const KvShape& shape, LevelSet levels);
// The number of a stream's entry in the index. REQUIRES: the stream exists.
size_t SlotOf(const KvShape& shape, LevelSet levels, const StreamId& id);

// Groups of an object, in file order.
std::vector<StreamGroup> GroupsOf(const KvShape& shape, LevelSet levels);
// The streams of a group that hold any of the heads [head_begin, head_end), in
// file order.
std::vector<StreamId> StreamsOf(const KvShape& shape, const StreamGroup& group,
                                int head_begin, int head_end);
// All streams of a group, in file order.
inline std::vector<StreamId> StreamsOf(const KvShape& shape,
                                       const StreamGroup& group) {
  return StreamsOf(shape, group, 0, shape.kv_heads);
}

}  // namespace kdn::codec

#endif  // KDN_CODEC_FORMAT_STREAM_LAYOUT_H_
