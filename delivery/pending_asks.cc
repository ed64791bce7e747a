#include "delivery/pending_asks.h"

#include <algorithm>

#include "placement/view.h"

namespace kdn::delivery {

int PendingAsks::Begin(Ask ask) {
  asks_.emplace(next_, std::move(ask));
  return next_++;
}

std::optional<Ask> PendingAsks::End(int number) {
  auto node = asks_.extract(number);
  if (node.empty()) return std::nullopt;
  return std::move(node.mapped());
}

std::vector<Ask> PendingAsks::EndOverdue(absl::Time now, IsLive is_live) {
  wake_due_ = true;
  if (now >= deadline_) return EndAll();
  std::vector<Ask> ended;
  for (auto it = asks_.begin(); it != asks_.end();) {
    if (is_live(it->second.node)) {
      ++it;
      continue;
    }
    ended.push_back(std::move(it->second));
    it = asks_.erase(it);
  }
  return ended;
}

std::vector<Ask> PendingAsks::EndAll() {
  std::vector<Ask> ended;
  for (auto& [number, ask] : std::exchange(asks_, {})) {
    ended.push_back(std::move(ask));
  }
  return ended;
}

std::optional<WakeAt> PendingAsks::TakeWake(absl::Time now) {
  if (!std::exchange(wake_due_, false)) return std::nullopt;
  return WakeAt{std::min(now + kWatch, deadline_)};
}

std::map<PartitionOfNode, std::vector<int>> GroupByPartition(
    const std::vector<Ask>& asks, const std::vector<ShardId>& shard_of_item,
    const PartitionCounts& partitions) {
  std::map<PartitionOfNode, std::vector<int>> groups;
  for (const Ask& ask : asks) {
    const auto live = partitions.find(ask.node);
    if (live == partitions.end() || live->second == 0) continue;
    for (const int item : ask.items) {
      const size_t partition =
          placement::PartitionOf(shard_of_item[item], live->second);
      groups[{ask.node, static_cast<uint32_t>(partition)}].push_back(item);
    }
  }
  return groups;
}

}  // namespace kdn::delivery
