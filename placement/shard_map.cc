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

absl::Status Validate(const std::vector<Member>& members,
                      const ShardMap::Options& options) {
  if (members.empty() || members.size() > ShardMap::kMembersMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        members.size(), " members, expected 1 to ", ShardMap::kMembersMax));
  }
  double total = 0.0;
  for (size_t i = 0; i < members.size(); ++i) {
    if (members[i].id.empty()) {
      return absl::InvalidArgumentError("a member has no id");
    }
    if (!std::isfinite(members[i].weight) || members[i].weight <= 0.0) {
      return absl::InvalidArgumentError(
          absl::StrCat("weight of ", members[i].id.name(), " is ",
                       members[i].weight, ", expected a number above 0"));
    }
    if (i > 0 && members[i].id == members[i - 1].id) {
      return absl::InvalidArgumentError(
          absl::StrCat("member ", members[i].id.name(), " is listed twice"));
    }
    total += members[i].weight;
  }
  if (!std::isfinite(total)) {
    return absl::InvalidArgumentError("the weights add up to infinity");
  }
  if (options.shards < 1 || options.shards > ShardMap::kShardsMax ||
      options.order_length < 1 || !(options.slack >= 0.0)) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.shards, " shards, slack ", options.slack, ", order length ",
        options.order_length, "; expected 1 to ", ShardMap::kShardsMax,
        " shards, slack 0 or more, order length 1 or more"));
  }
  return absl::OkStatus();
}

// Shards in an order that has nothing to do with their numbers: who is full
// first must not hang on where a key range lies.
std::vector<uint32_t> FillingOrder(uint32_t shards) {
  std::vector<uint32_t> order(shards);
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(), [](uint32_t a, uint32_t b) {
    return Mix(a ^ 0x5368617264ull) < Mix(b ^ 0x5368617264ull);
  });
  return order;
}

// How many shards each member may lead. They add up to `shards` or more.
std::vector<uint32_t> CapsOf(const std::vector<Member>& members,
                             const ShardMap::Options& options) {
  double total = 0.0;
  for (const Member& member : members) total += member.weight;
  std::vector<uint32_t> caps;
  for (const Member& member : members) {
    const double cap = std::ceil((1.0 + options.slack) *
                                 (member.weight / total) * options.shards);
    caps.push_back(cap < options.shards ? static_cast<uint32_t>(cap)
                                        : options.shards);
  }
  return caps;
}

}  // namespace

absl::StatusOr<ShardMap> ShardMap::Build(std::vector<Member> members,
                                         const Options& options) {
  std::sort(members.begin(), members.end(),
            [](const Member& a, const Member& b) { return a.id < b.id; });
  if (absl::Status status = Validate(members, options); !status.ok()) {
    return status;
  }
  return ShardMap(std::move(members), options);
}

ShardMap::ShardMap(std::vector<Member> members, const Options& options)
    : members_(std::move(members)),
      options_(options),
      order_length_(std::min<int>(options.order_length,
                                  static_cast<int>(members_.size()))) {
  Fill();
}

void ShardMap::Fill() {
  const size_t n = members_.size();
  std::vector<uint64_t> hashes;
  for (const Member& member : members_) {
    hashes.push_back(HashOf(member.id.name()));
  }
  std::vector<uint32_t> room = CapsOf(members_, options_);
  order_.resize(static_cast<size_t>(options_.shards) * order_length_);
  std::vector<std::pair<double, uint16_t>> ranked(n);
  for (uint32_t shard : FillingOrder(options_.shards)) {
    for (size_t i = 0; i < n; ++i) {
      ranked[i] = {RankOf(hashes[i], shard, members_[i].weight),
                   static_cast<uint16_t>(i)};
    }
    // Nearly always one of the nodes that are kept has room: sort no more.
    const auto has_room = [&](const auto& node) {
      return room[node.second] > 0;
    };
    const auto kept = ranked.begin() + order_length_;
    std::partial_sort(ranked.begin(), kept, ranked.end());
    auto first = std::find_if(ranked.begin(), kept, has_room);
    if (first == kept) {
      std::sort(kept, ranked.end());
      first = std::find_if(kept, ranked.end(), has_room);
    }
    KDN_CHECK(first != ranked.end(), "the caps add up to every shard");
    // It leads; those it overtook stay next in line.
    --room[first->second];
    std::rotate(ranked.begin(), first, first + 1);
    for (int k = 0; k < order_length_; ++k) {
      order_[static_cast<size_t>(shard) * order_length_ + k] = ranked[k].second;
    }
  }
}

ShardId ShardMap::ShardOf(const PlacementKey& key) const {
  // The key is a cryptographic hash already: any 8 bytes of it are uniform.
  uint64_t value = 0;
  for (int i = 0; i < 8; ++i) value = value << 8 | key.bytes()[i];
  return ShardId(static_cast<uint32_t>(value % options_.shards));
}

absl::Span<const uint16_t> ShardMap::OrderOf(ShardId shard) const {
  KDN_CHECK(shard.value() < options_.shards, "shard out of range");
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

ShardMap::Counts ShardMap::CountsOf(const NodeId& node, int replicas) const {
  Counts counts;
  const auto member =
      std::find_if(members_.begin(), members_.end(),
                   [&](const Member& m) { return m.id == node; });
  if (member == members_.end()) return counts;
  const auto index = static_cast<uint16_t>(member - members_.begin());
  for (uint32_t shard = 0; shard < options_.shards; ++shard) {
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
