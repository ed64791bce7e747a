#ifndef KDN_ACTORS_CLUSTER_VIEW_H_
#define KDN_ACTORS_CLUSTER_VIEW_H_

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "actors/messages.h"
#include "placement/view.h"

namespace kdn::actors {

// How this node talks to a live node.
struct PeerHandles {
  NodeActor node;
  // The node's storage actors; placement::PartitionOf chooses among them.
  std::vector<StorageActor> storage;
  // The version that both nodes speak, as placement::AgreeOnVersion says. 0:
  // this node itself.
  uint32_t version = 0;
};

// The nodes that answer, this node included.
using LiveNodes = std::map<NodeId, PeerHandles>;

// A placement::View, and the handles of the nodes that are live in it.
// Immutable: an actor that holds a view makes one decision on consistent data,
// and takes the newest view for its next decision.
struct ClusterView : placement::View {
  ClusterView(placement::View view, LiveNodes live_in)
      : View(std::move(view)), live(std::move(live_in)) {}

  static ShardId ShardOf(const ChunkRef& ref) {
    return placement::ShardOf(ref.key);
  }
  // The storage actor of `node` that keeps `shard`. Null when the node is not
  // live in this view.
  const StorageActor* StorageOf(const NodeId& node, ShardId shard) const {
    const auto it = live.find(node);
    if (it == live.end() || it->second.storage.empty()) return nullptr;
    const std::vector<StorageActor>& storage = it->second.storage;
    return &storage[placement::PartitionOf(shard, storage.size())];
  }

  const LiveNodes live;
};

// Holds the newest view of one node. The placement actor replaces the view; the
// node's actors and the bytes plane read it. Thread-safe.
class ViewHolder {
 public:
  // Null before the node has started and after it has stopped. Not null while
  // actors of the node run or peers can reach it.
  std::shared_ptr<const ClusterView> Get() const {
    absl::ReaderMutexLock lock(&mutex_);
    return view_;
  }
  void Set(std::shared_ptr<const ClusterView> view) {
    absl::MutexLock lock(&mutex_);
    view_ = std::move(view);
  }

 private:
  mutable absl::Mutex mutex_;
  std::shared_ptr<const ClusterView> view_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kdn::actors

#endif  // KDN_ACTORS_CLUSTER_VIEW_H_
