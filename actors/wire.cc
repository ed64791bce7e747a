#include "actors/wire.h"

#include <cstring>
#include <string>

namespace kdn::actors {

std::vector<char> PackKeys(absl::Span<const ChunkKey> keys) {
  std::vector<char> bytes;
  bytes.reserve(keys.size() * ChunkKey::kSize);
  for (const ChunkKey& key : keys) {
    bytes.insert(bytes.end(), key.bytes().begin(), key.bytes().end());
  }
  return bytes;
}

std::vector<ChunkKey> UnpackKeys(const std::vector<char>& bytes) {
  std::vector<ChunkKey> keys;
  keys.reserve(bytes.size() / ChunkKey::kSize);
  for (size_t at = 0; at + ChunkKey::kSize <= bytes.size();
       at += ChunkKey::kSize) {
    std::array<uint8_t, ChunkKey::kSize> key;
    std::memcpy(key.data(), bytes.data() + at, key.size());
    keys.emplace_back(key);
  }
  return keys;
}

std::vector<char> PackRef(const ChunkRef& ref) {
  return PackKeys({ref.key, ChunkKey(ref.placement.bytes())});
}

std::optional<ChunkRef> UnpackRef(const std::vector<char>& bytes) {
  const std::vector<ChunkKey> both = UnpackKeys(bytes);
  if (both.size() != 2) return std::nullopt;
  return ChunkRef{both[0], PlacementKey(both[1].bytes())};
}

LookupItem ToWire(const storage::ObjectInfo* info) {
  LookupItem item;
  if (info == nullptr) return item;
  item.hit = true;
  item.tier = static_cast<uint8_t>(info->tier);
  item.levels = info->levels;
  item.bytes = info->bytes;
  item.version = info->version.value();
  return item;
}

LookupResult FromWire(const LookupItem& item, const NodeId& node) {
  LookupResult result;
  result.hit = item.hit;
  result.node = node;
  result.tier = item.tier == static_cast<uint8_t>(Tier::kMemory) ? Tier::kMemory
                                                                 : Tier::kDisk;
  result.levels = LevelSet::FromBits(item.levels);
  result.bytes = item.bytes;
  result.version = ObjectVersion(item.version);
  return result;
}

StatusItem ToWire(const absl::Status& status) {
  return StatusItem{static_cast<int32_t>(status.code()),
                    std::string(status.message())};
}

absl::Status FromWire(const StatusItem& item) {
  if (item.code == 0) return absl::OkStatus();
  const bool known = item.code > 0 && item.code <= 16;  // absl's codes
  return absl::Status(known ? static_cast<absl::StatusCode>(item.code)
                            : absl::StatusCode::kUnknown,
                      item.message);
}

CopyAnswer ToWire(const absl::StatusOr<delivery::PushReceipt>& result) {
  CopyAnswer answer{ToWire(result.status())};
  if (!result.ok()) return answer;
  answer.version = result->version.value();
  answer.existed = result->existed;
  return answer;
}

absl::StatusOr<delivery::PushReceipt> FromWire(const CopyAnswer& answer) {
  if (answer.status.code != 0) return FromWire(answer.status);
  return delivery::PushReceipt{ObjectVersion(answer.version), answer.existed};
}

namespace {

std::vector<uint64_t> ListOf(const storage::DiskTier::Counters& c) {
  return {c.live_bytes,
          c.segment_bytes,
          c.segments,
          c.objects,
          c.writes,
          c.reads,
          c.bytes_written,
          c.bytes_read,
          c.evictions,
          c.damaged,
          c.cleaned_segments,
          c.rebuilt_objects,
          c.io_uring ? 1u : 0u,
          c.direct ? 1u : 0u};
}

// Reads a list of numbers in order; one that is missing (an older peer) is 0.
class Numbers {
 public:
  explicit Numbers(const std::vector<uint64_t>& list) : list_(list) {}
  uint64_t Next() { return at_ < list_.size() ? list_[at_++] : 0; }

 private:
  const std::vector<uint64_t>& list_;
  size_t at_ = 0;
};

storage::DiskTier::Counters DiskOf(const std::vector<uint64_t>& list) {
  Numbers numbers(list);
  storage::DiskTier::Counters c;
  for (uint64_t* field :
       {&c.live_bytes, &c.segment_bytes, &c.segments, &c.objects, &c.writes,
        &c.reads, &c.bytes_written, &c.bytes_read, &c.evictions, &c.damaged,
        &c.cleaned_segments, &c.rebuilt_objects}) {
    *field = numbers.Next();
  }
  c.io_uring = numbers.Next() != 0;
  c.direct = numbers.Next() != 0;
  return c;
}

}  // namespace

NodeReport ToWire(const delivery::NodeStatus& s) {
  NodeReport report;
  report.id = s.id.name();
  report.epoch = s.epoch;
  report.shards_primary = s.shards_primary;
  report.shards_held = s.shards_held;
  report.store = s.store;
  report.disk = ListOf(s.disk);
  report.delivery = {s.stores,
                     s.retrieves,
                     s.chunks_hit,
                     s.chunks_missed,
                     s.chunks_failed,
                     s.peer_bytes_in,
                     s.peer_bytes_out,
                     s.engine_bytes_in,
                     s.engine_bytes_out,
                     s.chunks_recomputed,
                     s.rate.plans,
                     s.rate.plans_blind,
                     s.rate.chunks_loaded,
                     s.rate.chunks_recomputed,
                     s.rate.bytes_predicted,
                     s.rate.bytes_actual,
                     s.rate.load_us_predicted,
                     s.rate.load_us_actual,
                     s.rate.late,
                     s.rate.slower_than_recompute};
  report.memory_budget_bytes = s.memory_budget_bytes;
  report.rss_bytes = s.rss_bytes;
  report.uptime_s = s.uptime_s;
  return report;
}

delivery::NodeStatus FromWire(const NodeReport& report) {
  delivery::NodeStatus s;
  s.id = NodeId(report.id);
  s.epoch = report.epoch;
  s.shards_primary = report.shards_primary;
  s.shards_held = report.shards_held;
  s.store = report.store;
  s.disk = DiskOf(report.disk);
  Numbers numbers(report.delivery);
  for (uint64_t* field : {&s.stores,
                          &s.retrieves,
                          &s.chunks_hit,
                          &s.chunks_missed,
                          &s.chunks_failed,
                          &s.peer_bytes_in,
                          &s.peer_bytes_out,
                          &s.engine_bytes_in,
                          &s.engine_bytes_out,
                          &s.chunks_recomputed,
                          &s.rate.plans,
                          &s.rate.plans_blind,
                          &s.rate.chunks_loaded,
                          &s.rate.chunks_recomputed,
                          &s.rate.bytes_predicted,
                          &s.rate.bytes_actual,
                          &s.rate.load_us_predicted,
                          &s.rate.load_us_actual,
                          &s.rate.late,
                          &s.rate.slower_than_recompute}) {
    *field = numbers.Next();
  }
  s.memory_budget_bytes = report.memory_budget_bytes;
  s.rss_bytes = report.rss_bytes;
  s.uptime_s = report.uptime_s;
  return s;
}

}  // namespace kdn::actors
