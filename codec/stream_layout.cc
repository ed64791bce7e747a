#include "codec/stream_layout.h"

#include <string_view>

#include "absl/strings/str_cat.h"
#include "kv/check.h"

namespace kdn::codec {

std::string Name(const StreamId& id) {
  const std::string_view level = kdn::Name(id.level);
  return absl::StrCat("level ", absl::string_view(level.data(), level.size()),
                      " layer ", id.layer, " ",
                      id.part == KvPart::kK ? "K" : "V", " head ", id.head);
}

std::vector<Level> LevelsOf(LevelSet levels) {
  std::vector<Level> result;
  for (Level level : kLevels) {
    if (levels.Has(level)) result.push_back(level);
  }
  return result;
}

size_t StreamCount(const KvShape& shape, LevelSet levels) {
  return LevelsOf(levels).size() * shape.layers * 2 * shape.kv_heads;
}

size_t SlotOf(const KvShape& shape, LevelSet levels, const StreamId& id) {
  KDN_CHECK(levels.Has(id.level), "the object does not hold this level");
  KDN_CHECK(id.layer >= 0 && id.layer < shape.layers, "no such layer");
  KDN_CHECK(id.head >= 0 && id.head < shape.kv_heads, "no such head");
  size_t slot = 0;
  for (Level level : kLevels) {
    if (level == id.level) break;
    slot += levels.Has(level) ? 1 : 0;
  }
  slot = slot * shape.layers + id.layer;
  slot = slot * 2 + static_cast<size_t>(id.part);
  return slot * shape.kv_heads + id.head;
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

std::vector<StreamId> StreamsOf(const StreamGroup& group, int head_begin,
                                int head_end) {
  KDN_CHECK(0 <= head_begin && head_begin <= head_end, "bad head range");
  std::vector<StreamId> streams;
  streams.reserve(2 * (head_end - head_begin));
  for (KvPart part : {KvPart::kK, KvPart::kV}) {
    for (int head = head_begin; head < head_end; ++head) {
      streams.push_back({group.level, group.layer, part, head});
    }
  }
  return streams;
}

}  // namespace kdn::codec
