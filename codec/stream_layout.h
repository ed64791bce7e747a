#ifndef KDN_CODEC_STREAM_LAYOUT_H_
#define KDN_CODEC_STREAM_LAYOUT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "codec/object.h"

namespace kdn::codec {

// The order of streams, in one place. In the index: level, layer, part, head.
// In the file: layer, level, part, head, because an encoder sees one layer at a
// time and may not know a stream's length before. The streams of one (layer,
// level) are a group: back to back, its start aligned to kGroupAlignment, so
// that a whole layer of one level is a single read.
inline constexpr uint64_t kGroupAlignment = 64;
inline constexpr std::array<Level, kLevelCount> kLevels = {Level::kLossless,
                                                           Level::kInt8};

constexpr uint64_t AlignUp(uint64_t offset) {
  return (offset + kGroupAlignment - 1) / kGroupAlignment * kGroupAlignment;
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
// Streams of heads [head_begin, head_end) of a group, in file order.
std::vector<StreamId> StreamsOf(const StreamGroup& group, int head_begin,
                                int head_end);

}  // namespace kdn::codec

#endif  // KDN_CODEC_STREAM_LAYOUT_H_
