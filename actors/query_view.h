#ifndef KDN_ACTORS_QUERY_VIEW_H_
#define KDN_ACTORS_QUERY_VIEW_H_

#include "actors/node_context.h"
#include "delivery/pending_asks.h"

// What the queries of delivery/ are told of the cluster's view.
namespace kdn::actors {

inline delivery::PartitionCounts PartitionsOf(const ClusterView& view) {
  delivery::PartitionCounts partitions;
  for (const auto& [id, peer] : view.live) {
    if (peer.storage.empty()) continue;
    partitions.emplace(id, static_cast<uint32_t>(peer.storage.size()));
  }
  return partitions;
}

// Whether `id` is alive in `newest` with the actors that it had in `then`: a
// node that died and came back does not answer what it was asked before.
inline bool IsStillLive(const ClusterView& then, const ClusterView& newest,
                        const NodeId& id) {
  const auto before = then.live.find(id);
  const auto now = newest.live.find(id);
  return before != then.live.end() && now != newest.live.end() &&
         before->second.node == now->second.node &&
         before->second.storage == now->second.storage;
}

}  // namespace kdn::actors

#endif  // KDN_ACTORS_QUERY_VIEW_H_
