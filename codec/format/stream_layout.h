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
    Level::kLossless, Level::kInt8,  Level::kBase,
    Level::kBase1,    Level::kBase2, Level::kArchive};

constexpr uint64_t AlignUp(uint64_t offset) {
  return (offset + kGroupAlignment - 1) / kGroupAlignment * kGroupAlignment;
}

// The largest head_dim that the transform-coded levels take.
inline constexpr int kTransformDimMax = 256;
// The most dimensions and components that the transform of a stream may have.
// A joint stream has up to this many dimensions.
inline constexpr int kJointDimMax = 2 * kTransformDimMax;

constexpr bool IsTransformCoded(Level level) { return level >= Level::kBase; }
// Whether a level of the set is transform-coded.
bool HasTransformCoded(LevelSet levels);

// Steps of the longest ladder: base, base+1, base+2.
inline constexpr int kLadderSteps = 3;
// The levels whose streams are needed to deliver `level`, in decoding order:
// the levels that it refines, then `level` itself.
absl::Span<const Level> LadderTo(Level level);

// The number of heads that share a stream, if K and V have streams of their
// own; divides kv_heads. A transform-coded stream joins heads up to 128
// dimensions, because each stream costs some 130 bytes and because the heads of
// a layer resemble each other. All other streams have one head.
int HeadsPerStream(int kv_heads, int head_dim, Level level);

// What decides which streams an object has.
struct StreamGrid {
  // K and V have streams of their own.
  StreamGrid(const KvShape& of)  // NOLINT(google-explicit-constructor)
      : shape(of) {}
  StreamGrid(const KvShape& of, int joint) : shape(of), joint_heads(joint) {}

  // Whether K and V share the streams of a level.
  bool IsJoint(Level level) const {
    return joint_heads > 0 && IsTransformCoded(level);
  }
  // The heads of a stream's K or V.
  int HeadsOf(KvPart part, Level level) const {
    return IsJoint(level)
               ? joint_heads
               : HeadsPerStream(shape.kv_heads, shape.dim(part), level);
  }

  KvShape shape;
  // ObjectHeader::joint_heads.
  int joint_heads = 0;
};
// Whether K and V of so many heads may share a stream: `heads` divides the
// heads, and the stream has at most kJointDimMax dimensions.
inline bool MayJoin(const KvShape& shape, int heads) {
  return heads > 0 && shape.kv_heads % heads == 0 &&
         heads * (shape.dim(KvPart::kK) + shape.dim(KvPart::kV)) <=
             kJointDimMax;
}
// The grid of an object.
inline StreamGrid GridOf(const ObjectHeader& header) {
  return {header.shape, header.joint_heads};
}

// The streams of one (layer, level).
struct StreamGroup {
  int layer = 0;
  Level level = Level::kLossless;
};

std::string Name(const StreamId& id);

// Levels of the set, in index order.
std::vector<Level> LevelsOf(LevelSet levels);
size_t StreamCount(const StreamGrid& grid, LevelSet levels);
// The number of a stream's entry in the index. REQUIRES: the stream exists.
size_t SlotOf(const StreamGrid& grid, LevelSet levels, const StreamId& id);

// Groups of an object, in file order.
std::vector<StreamGroup> GroupsOf(const KvShape& shape, LevelSet levels);
// The streams of a group that hold any of the heads [head_begin, head_end), in
// file order. Where K and V share streams, the entries of V are among them:
// they have no bytes, but errors of their own.
std::vector<StreamId> StreamsOf(const StreamGrid& grid,
                                const StreamGroup& group, int head_begin,
                                int head_end);
// All streams of a group, in file order.
inline std::vector<StreamId> StreamsOf(const StreamGrid& grid,
                                       const StreamGroup& group) {
  return StreamsOf(grid, group, 0, grid.shape.kv_heads);
}

}  // namespace kdn::codec

#endif  // KDN_CODEC_FORMAT_STREAM_LAYOUT_H_
