#include "actors/wire.h"

#include <cstring>
#include <string>
#include <utility>

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

std::vector<char> PackRef(const ChunkRef& ref) { return PackKeys({ref.key}); }

std::optional<ChunkRef> UnpackRef(const std::vector<char>& bytes) {
  const std::vector<ChunkKey> keys = UnpackKeys(bytes);
  if (keys.size() != 1) return std::nullopt;
  return ChunkRef{keys[0]};
}

std::vector<char> PackIds(const delivery::CalibrationIds& ids) {
  std::vector<char> bytes;
  bytes.reserve(ids.size() * codec::CalibrationId::kSize);
  for (const codec::CalibrationId& id : ids) {
    bytes.insert(bytes.end(), id.bytes().begin(), id.bytes().end());
  }
  return bytes;
}

delivery::CalibrationIds UnpackIds(const std::vector<char>& bytes) {
  constexpr size_t kSize = codec::CalibrationId::kSize;
  delivery::CalibrationIds ids;
  for (size_t at = 0; at + kSize <= bytes.size(); at += kSize) {
    ids.insert(*codec::CalibrationId::FromBytes(absl::MakeConstSpan(
        reinterpret_cast<const uint8_t*>(bytes.data()) + at, kSize)));
  }
  return ids;
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

caf::error RefusalOf(const absl::Status& why) {
  return caf::make_error(caf::sec::invalid_argument,
                         std::string(why.message()));
}

std::optional<std::string> RefusalIn(const caf::error& error) {
  if (error != caf::sec::invalid_argument ||
      !error.context().match_elements<std::string>()) {
    return std::nullopt;
  }
  return error.context().get_as<std::string>(0);
}

namespace {

MetricItem ToWire(const MetricSample& sample) {
  MetricItem item{
      sample.name, static_cast<uint8_t>(sample.type), sample.value, {}};
  if (sample.type != MetricType::kHistogram) return item;
  item.value = sample.histogram.sum();
  for (const Histogram::Bucket& bucket : sample.histogram.Buckets()) {
    item.buckets.push_back(bucket.at_most);
    item.buckets.push_back(bucket.count);
  }
  return item;
}

MetricSample FromWire(const MetricItem& item) {
  MetricSample sample;
  sample.name = item.name;
  // A type that only a newer peer knows is read as a gauge.
  if (item.type <= static_cast<uint8_t>(MetricType::kHistogram)) {
    sample.type = static_cast<MetricType>(item.type);
  }
  if (sample.type != MetricType::kHistogram) {
    sample.value = item.value;
    return sample;
  }
  sample.histogram.AddSum(item.value);
  for (size_t i = 0; i + 1 < item.buckets.size(); i += 2) {
    sample.histogram.AddBucket(item.buckets[i], item.buckets[i + 1]);
  }
  return sample;
}

}  // namespace

std::vector<MetricItem> ToWire(const MetricValues& values) {
  std::vector<MetricItem> items;
  for (const MetricSample& sample : values.Samples()) {
    MetricItem item = ToWire(sample);
    if (item.value == 0 && item.buckets.empty()) continue;
    items.push_back(std::move(item));
  }
  return items;
}

MetricValues FromWire(const std::vector<MetricItem>& items) {
  MetricValues values;
  for (const MetricItem& item : items) values.Add(FromWire(item));
  return values;
}

IntroductionItem ToWire(const placement::Introduction& introduction) {
  IntroductionItem item;
  item.cluster = introduction.cluster;
  item.node = introduction.node.name();
  item.oldest_version = introduction.versions.oldest;
  item.newest_version = introduction.versions.newest;
  item.replicas = introduction.replicas;
  item.shards = introduction.shards;
  item.weight = introduction.settings.weight;
  item.zone = introduction.settings.zone;
  if (introduction.peer_settings) {
    item.knows_peer = true;
    item.peer_weight = introduction.peer_settings->weight;
    item.peer_zone = introduction.peer_settings->zone;
  }
  return item;
}

placement::Introduction FromWire(const IntroductionItem& item) {
  placement::Introduction introduction{
      .cluster = item.cluster,
      .node = NodeId(item.node),
      .versions = {item.oldest_version, item.newest_version},
      .replicas = item.replicas,
      .shards = item.shards,
      .settings = {item.weight, item.zone},
      .peer_settings = {}};
  if (item.knows_peer) {
    introduction.peer_settings = {item.peer_weight, item.peer_zone};
  }
  return introduction;
}

}  // namespace kdn::actors
