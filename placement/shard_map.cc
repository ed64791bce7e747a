#include "placement/shard_map.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "placement/rendezvous.h"

namespace kdn::placement {
namespace {

// All shards in an order that is unrelated to their numbers. Fill caps nodes in
// this order, and a cap must not hit one range of shard numbers.
std::vector<uint32_t> FillingOrder() {
  std::vector<std::pair<uint64_t, uint32_t>> mixed;
  mixed.reserve(kShards);
  for (uint32_t shard = 0; shard < kShards; ++shard) {
    mixed.emplace_back(Mix(shard ^ 0x5368617264ull), shard);
  }
  std::sort(mixed.begin(), mixed.end());
  std::vector<uint32_t> order;
  order.reserve(kShards);
  for (const auto& [hash, shard] : mixed) order.push_back(shard);
  return order;
}

// How many shards each member may be the first owner of. The caps add up to
// kShards or more.
std::vector<uint32_t> CapsOf(const std::vector<MapMember>& members,
                             const ShardMap::Options& options) {
  double total = 0.0;
  for (const MapMember& member : members) total += member.weight;
  std::vector<uint32_t> caps;
  for (const MapMember& member : members) {
    const double cap =
        std::ceil((1.0 + options.slack) * (member.weight / total) * kShards);
    caps.push_back(cap < kShards ? static_cast<uint32_t>(cap) : kShards);
  }
  return caps;
}

absl::Status ValidateMember(const MapMember& member) {
  if (member.id.empty()) {
    return absl::InvalidArgumentError("a member has no id");
  }
  if (!std::isfinite(member.weight) || member.weight <= 0.0) {
    return absl::InvalidArgumentError(
        absl::StrCat("weight of ", member.id.name(), " is ", member.weight,
                     ", expected a number above 0"));
  }
  return absl::OkStatus();
}

void SortById(std::vector<MapMember>& members) {
  std::sort(members.begin(), members.end(),
            [](const MapMember& a, const MapMember& b) { return a.id < b.id; });
}

}  // namespace

ShardId ShardOf(const ChunkKey& key) {
  // Bytes of a cryptographic hash are uniform already.
  uint64_t value = 0;
  static_assert(kPlacementBytes == sizeof(value));
  for (size_t i = 0; i < kPlacementBytes; ++i)
    value = value << 8 | key.bytes()[i];
  return ShardId(static_cast<uint32_t>(value % kShards));
}

absl::Status ShardMap::Validate(std::vector<MapMember> members,
                                const Options& options) {
  if (members.empty() || members.size() > kMembersMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("the list has ", members.size(),
                     " members, expected 1 to ", kMembersMax));
  }
  SortById(members);
  double total = 0.0;
  for (size_t i = 0; i < members.size(); ++i) {
    absl::Status status = ValidateMember(members[i]);
    if (!status.ok()) return status;
    if (i > 0 && members[i].id == members[i - 1].id) {
      return absl::InvalidArgumentError(
          absl::StrCat("member ", members[i].id.name(), " is listed twice"));
    }
    total += members[i].weight;
  }
  if (!std::isfinite(total)) {
    return absl::InvalidArgumentError("the weights add up to infinity");
  }
  if (options.order_length < 1 || !(options.slack >= 0.0)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "slack is ", options.slack, " and order_length is ",
        options.order_length,
        ", expected slack of 0 or more and order_length of 1 or more"));
  }
  return absl::OkStatus();
}

absl::StatusOr<ShardMap> ShardMap::Build(std::vector<MapMember> members,
                                         const Options& options) {
  if (absl::Status status = Validate(members, options); !status.ok()) {
    return status;
  }
  SortById(members);
  return ShardMap(std::move(members), options);
}

ShardMap::ShardMap(std::vector<MapMember> members, const Options& options)
    : members_(std::move(members)),
      options_(options),
      order_length_(std::min<int>(options.order_length,
                                  static_cast<int>(members_.size()))) {
  Fill();
}

void ShardMap::Fill() {
  std::vector<uint32_t> room = CapsOf(members_, options_);
  const auto has_room = [&](uint16_t member) { return room[member] > 0; };
  order_.resize(static_cast<size_t>(kShards) * order_length_);
  ShardRanks ranks(members_, static_cast<size_t>(order_length_));
  for (uint32_t shard : FillingOrder()) {
    absl::Span<const uint16_t> ranked = ranks.First(ShardId(shard));
    // Nearly always, one of the first nodes has room.
    auto first = std::find_if(ranked.begin(), ranked.end(), has_room);
    if (first == ranked.end()) {
      ranked = ranks.All(ShardId(shard));
      first = std::find_if(ranked.begin(), ranked.end(), has_room);
    }
    KDN_CHECK(first != ranked.end(), "the caps add up to kShards or more");
    // The first node with room is the first owner. The nodes before it follow
    // in their order.
    --room[*first];
    uint16_t* order = &order_[static_cast<size_t>(shard) * order_length_];
    uint16_t* const end = order + order_length_;
    *order++ = *first;
    for (auto next = ranked.begin(); order != end; ++next) {
      if (next != first) *order++ = *next;
    }
  }
}

absl::Span<const uint16_t> ShardMap::OrderOf(ShardId shard) const {
  KDN_CHECK(shard.value() < kShards, "shard out of range");
  return absl::Span<const uint16_t>(order_).subspan(
      static_cast<size_t>(shard.value()) * order_length_, order_length_);
}

const NodeId& ShardMap::FirstOwner(ShardId shard) const {
  return members_[OrderOf(shard)[0]].id;
}

std::vector<NodeId> ShardMap::Owners(ShardId shard, int count) const {
  std::vector<NodeId> owners;
  for (uint16_t member : OrderOf(shard)) {
    if (static_cast<int>(owners.size()) == count) break;
    owners.push_back(members_[member].id);
  }
  return owners;
}

std::vector<MapMember>::const_iterator ShardMap::Find(
    const NodeId& node) const {
  const auto at = std::lower_bound(
      members_.begin(), members_.end(), node,
      [](const MapMember& member, const NodeId& id) { return member.id < id; });
  return at != members_.end() && at->id == node ? at : members_.end();
}

ShardMap::Counts ShardMap::CountsOf(const NodeId& node, int replicas) const {
  Counts counts;
  const auto member = Find(node);
  if (member == members_.end()) return counts;
  const auto index = static_cast<uint16_t>(member - members_.begin());
  for (uint32_t shard = 0; shard < kShards; ++shard) {
    const absl::Span<const uint16_t> order = OrderOf(ShardId(shard));
    for (int k = 0; k < replicas && k < order_length_; ++k) {
      if (order[k] != index) continue;
      counts.held += 1;
      counts.primary += k == 0 ? 1 : 0;
    }
  }
  return counts;
}

}  // namespace kdn::placement
