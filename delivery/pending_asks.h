#ifndef KDN_DELIVERY_PENDING_ASKS_H_
#define KDN_DELIVERY_PENDING_ASKS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "delivery/replica_walk.h"
#include "kv/ids.h"

namespace kdn::delivery {

// By live node: the number of partitions over which the node spreads its shards
// (placement::PartitionOf). A node that is not listed is not alive.
using PartitionCounts = std::map<NodeId, uint32_t>;

// True when the node is alive and has been alive since the query began.
using IsLive = absl::FunctionRef<bool(const NodeId&)>;

// An action: tell the query, with OnTime, when `at` has come.
struct WakeAt {
  absl::Time at;
};

// The asks of one query (a lookup, a change of leases, a status call) that are
// not answered yet. An ask ends when its answer comes, when its node dies, or
// when the query's deadline passes. The query waits until the deadline for a
// node that is alive and silent. Pure; thread-compatible.
class PendingAsks {
 public:
  // How soon a query notices that a node it waits for has died.
  static constexpr absl::Duration kWatch = absl::Milliseconds(100);

  explicit PendingAsks(absl::Time deadline) : deadline_(deadline) {}

  // Returns the new ask's number.
  int Begin(Ask ask);
  // Ends the ask with this number and returns it; unset when it has ended
  // before.
  std::optional<Ask> End(int number);
  // A wake-up came. Ends and returns the asks of dead nodes, or at the deadline
  // all asks, in the order in which they began.
  std::vector<Ask> EndOverdue(absl::Time now, IsLive is_live);
  std::vector<Ask> EndAll();
  // When EndOverdue is due next. Unset while a wake-up that was taken has not
  // come yet.
  std::optional<WakeAt> TakeWake(absl::Time now);

  bool empty() const { return asks_.empty(); }
  absl::Time deadline() const { return deadline_; }

 private:
  const absl::Time deadline_;
  std::map<int, Ask> asks_;  // by number
  int next_ = 0;
  bool wake_due_ = true;
};

// The items of `asks`, grouped by the asked node and its partition that holds
// the item's shard, in the order of nodes and partitions. Leaves out the items
// that are asked of a node that is not alive.
using PartitionOfNode = std::pair<NodeId, uint32_t>;
std::map<PartitionOfNode, std::vector<int>> GroupByPartition(
    const std::vector<Ask>& asks, const std::vector<ShardId>& shard_of_item,
    const PartitionCounts& partitions);

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_PENDING_ASKS_H_
