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

// Over how many partitions each live node spreads its shards: shard s is in
// partition s modulo that number. Nodes that are not listed are not alive.
using PartitionCounts = std::map<NodeId, uint32_t>;

// Whether a node is alive now and has been since the query began.
using IsLive = absl::FunctionRef<bool(const NodeId&)>;

// An action: tell the query, with OnTime, when `at` has come.
struct WakeAt {
  absl::Time at;
};

// What one query (a lookup, a change of leases, a status call) has asked of
// nodes and still waits for. An ask ends when its answer comes, when its node
// dies, or when the query's deadline passes. A node that is alive and silent is
// waited for until the deadline. Pure; thread-compatible.
class PendingAsks {
 public:
  // How soon a query notices that a node it waits for has died.
  static constexpr absl::Duration kWatch = absl::Milliseconds(100);

  explicit PendingAsks(absl::Time deadline) : deadline_(deadline) {}

  // Returns the new ask's number.
  int Begin(Ask ask);
  // The ask with this number, which ends; unset when it has ended before.
  std::optional<Ask> End(int number);
  // The asks that end because time has passed, in the order in which they
  // began: those whose node is dead, or all at the deadline.
  std::vector<Ask> EndOverdue(absl::Time now, IsLive is_live);
  std::vector<Ask> EndAll();

  bool empty() const { return asks_.empty(); }
  absl::Time deadline() const { return deadline_; }
  // When to call EndOverdue next.
  absl::Time NextLook(absl::Time now) const;

 private:
  const absl::Time deadline_;
  std::map<int, Ask> asks_;  // by number
  int next_ = 0;
};

// The items of `asks` by the partition that holds each item's shard at the
// asked node, ordered by node and partition. Items that are asked of a node
// that is not alive are left out.
using PartitionOfNode = std::pair<NodeId, uint32_t>;
std::map<PartitionOfNode, std::vector<int>> GroupByPartition(
    const std::vector<Ask>& asks, const std::vector<ShardId>& shard_of_item,
    const PartitionCounts& partitions);

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_PENDING_ASKS_H_
