#include "codec/format/stream_layout.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "kv/check.h"

namespace kdn::codec {
namespace {

// Head groups of one layer's K or V.
int HeadGroups(const StreamGrid& grid, KvPart part, Level level) {
  return grid.shape.kv_heads / grid.HeadsOf(part, level);
}

// Streams of one level, all layers.
size_t StreamsAt(const StreamGrid& grid, Level level) {
  return static_cast<size_t>(grid.shape.layers) *
         (HeadGroups(grid, KvPart::kK, level) +
          HeadGroups(grid, KvPart::kV, level));
}

}  // namespace

bool HasTransformCoded(LevelSet levels) {
  return levels.Has(Level::kBase) || levels.Has(Level::kBase1) ||
         levels.Has(Level::kBase2) || levels.Has(Level::kArchive);
}

absl::Span<const Level> LadderTo(Level level) {
  static constexpr Level kLossless[] = {Level::kLossless};
  static constexpr Level kInt8[] = {Level::kInt8};
  static constexpr Level kLadder[] = {Level::kBase, Level::kBase1,
                                      Level::kBase2};
  static_assert(std::size(kLadder) == kLadderSteps);
  static constexpr Level kArchive[] = {Level::kArchive};
  switch (level) {
    case Level::kLossless:
      return kLossless;
    case Level::kInt8:
      return kInt8;
    case Level::kBase:
      return absl::MakeConstSpan(kLadder, 1);
    case Level::kBase1:
      return absl::MakeConstSpan(kLadder, 2);
    case Level::kBase2:
      return kLadder;
    case Level::kArchive:
      return kArchive;
  }
  KDN_CHECK(false, "level out of range");
  return {};
}

int HeadsPerStream(int kv_heads, int head_dim, Level level) {
  constexpr int kJoinedDims = 128;
  if (!IsTransformCoded(level)) return 1;
  int heads = std::min(kv_heads, std::max(1, kJoinedDims / head_dim));
  while (kv_heads % heads != 0) --heads;
  return heads;
}

std::string Name(const StreamId& id) {
  const std::string_view level = kdn::Name(id.level);
  return absl::StrCat(
      "level ", absl::string_view(level.data(), level.size()), " layer ",
      id.layer, " ", id.part == KvPart::kK ? "K" : "V",
      IsTransformCoded(id.level) ? " head group " : " head ", id.head_group);
}

std::vector<Level> LevelsOf(LevelSet levels) {
  std::vector<Level> result;
  for (Level level : kLevels) {
    if (levels.Has(level)) result.push_back(level);
  }
  return result;
}

size_t StreamCount(const StreamGrid& grid, LevelSet levels) {
  size_t count = 0;
  for (const Level level : kLevels) {
    if (levels.Has(level)) count += StreamsAt(grid, level);
  }
  return count;
}

size_t SlotOf(const StreamGrid& grid, LevelSet levels, const StreamId& id) {
  const size_t of_k = HeadGroups(grid, KvPart::kK, id.level);
  const size_t of_v = HeadGroups(grid, KvPart::kV, id.level);
  const bool is_v = id.part == KvPart::kV;
  const int groups = static_cast<int>(is_v ? of_v : of_k);
  KDN_CHECK(levels.Has(id.level), "the object does not hold this level");
  KDN_CHECK(id.layer >= 0 && id.layer < grid.shape.layers, "no such layer");
  KDN_CHECK(id.head_group >= 0 && id.head_group < groups, "no such head");
  size_t before = 0;
  for (const Level level : kLevels) {
    if (level == id.level) break;
    if (levels.Has(level)) before += StreamsAt(grid, level);
  }
  return before + id.layer * (of_k + of_v) + (is_v ? of_k : 0) + id.head_group;
}

std::vector<StreamGroup> GroupsOf(const KvShape& shape, LevelSet levels) {
  const std::vector<Level> ordered = LevelsOf(levels);
  std::vector<StreamGroup> groups;
  groups.reserve(shape.layers * ordered.size());
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (Level level : ordered) groups.push_back({layer, level});
  }
  return groups;
}

std::vector<StreamId> StreamsOf(const StreamGrid& grid,
                                const StreamGroup& group, int head_begin,
                                int head_end) {
  KDN_CHECK(0 <= head_begin && head_begin <= head_end, "bad head range");
  std::vector<StreamId> streams;
  streams.reserve(2 * (head_end - head_begin));
  for (KvPart part : {KvPart::kK, KvPart::kV}) {
    const int heads = grid.HeadsOf(part, group.level);
    const int begin = head_begin / heads;
    const int end =
        head_begin == head_end ? begin : (head_end + heads - 1) / heads;
    for (int head_group = begin; head_group < end; ++head_group) {
      streams.push_back({group.level, group.layer, part, head_group});
    }
  }
  return streams;
}

}  // namespace kdn::codec
