#ifndef KDN_ACTORS_QUERY_VIEW_H_
#define KDN_ACTORS_QUERY_VIEW_H_

#include "actors/node_context.h"
#include "delivery/pending_asks.h"

// What the actors tell the query sessions of delivery/ about the view.
namespace kdn::actors {

// How many partitions each live node has.
inline delivery::PartitionCounts PartitionsOf(const ClusterView& view) {
  delivery::PartitionCounts partitions;
  for (const auto& [id, peer] : view.live) {
    if (peer.storage.empty()) continue;
    partitions.emplace(id, static_cast<uint32_t>(peer.storage.size()));
  }
  return partitions;
}

// Whether `id` is alive in `newest` with the same actors as in `then`. A node
// that died and came back has new actors, and never answers what the old ones
// were asked.
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
