#ifndef KDN_PLACEMENT_MEMBERSHIP_H_
#define KDN_PLACEMENT_MEMBERSHIP_H_

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kv/ids.h"
#include "placement/dialler.h"
#include "placement/map_planner.h"
#include "placement/member.h"
#include "placement/view.h"

namespace kdn::placement {

// Everything that one node decides about membership: which peers it dials
// (Dialler), which shard maps are built and when (MapPlanner), and what it
// believes about the cluster (View). No node leads: each node decides for
// itself.
//
// Events and the time in; peer actions, builds and views out. After every event
// and at wake(), the caller performs the actions, then publishes the view if it
// changed, then begins the build. A view shows the loss or the gain of a peer
// at once. Shards change owners when the new map is built; the last map serves
// until then. Pure; thread-compatible.
class Membership {
 public:
  struct Options {
    NodeId self;
    int replicas = 2;
    Dialler::Options dialling = {};
    absl::Duration coalesce = absl::Milliseconds(50);  // see MapPlanner
  };

  // Begins with this node as the only live member. Builds two maps.
  // INVALID_ARGUMENT as ValidateMembers.
  static absl::StatusOr<Membership> Create(Options options,
                                           std::vector<MemberSpec> list,
                                           absl::Time now);

  // Replaces the member list. INVALID_ARGUMENT, and nothing changes, when
  // ValidateMembers refuses the list.
  absl::Status OnMembers(std::vector<MemberSpec> list, absl::Time now);
  // The results of peer actions, as the functions of Dialler.
  void OnConnected(const NodeId& peer, DialId dial, absl::Time now);
  void OnAnswer(const NodeId& peer, DialId dial, const JoinClaim& claim,
                absl::Time now);
  void OnRefused(const NodeId& peer, DialId dial, const std::string& reason,
                 absl::Time now);
  void OnFailed(const NodeId& peer, DialId dial, absl::Time now);
  void OnDown(const NodeId& peer, DialId dial, absl::Time now);
  // The map of the set that TakeBuild returned last is built.
  void OnMapBuilt(std::shared_ptr<const ShardMap> map, absl::Time now);

  // The actions that are due, to be performed in this order, before the view is
  // published.
  std::vector<PeerAction> TakeActions(absl::Time now);
  // True once after every change of the view.
  bool TakeViewChanged();
  // The member set to build a map of now, with map_options(). Nullopt when no
  // build is due.
  std::optional<MapMembers> TakeBuild(absl::Time now);
  // When actions or a build are due without an event. InfiniteFuture: never.
  absl::Time wake() const;

  const View& view() const { return *view_; }
  const ShardMap::Options& map_options() const { return map_options_; }
  void CheckInvariants() const;

 private:
  struct Entry {
    MemberSpec spec;
    bool up = false;
    Incarnation incarnation;
  };

  Membership(Options options, std::vector<MemberSpec> list, absl::Time now);
  void SetList(std::vector<MemberSpec> list, absl::Time now);
  // Takes the dialler's actions over, and refreshes the view if need be.
  void Absorb(absl::Time now);
  // Applies an action to entries_. True when the view changes.
  bool TakeIn(const PeerAction& action);
  // Asks for the maps of the present members, and makes a view with the newest
  // maps that are built.
  void Refresh(absl::Time now);
  std::vector<Member> MembersFor(const ShardMap& map) const;

  Options options_;
  ShardMap::Options map_options_;
  Dialler dialler_;
  MapPlanner planner_;
  std::map<NodeId, Entry> entries_;
  std::vector<PeerAction> actions_;
  std::shared_ptr<const ShardMap> map_;
  std::shared_ptr<const ShardMap> map_of_all_;
  std::optional<View> view_;
  bool view_changed_ = false;
};

// INVALID_ARGUMENT when `self` is not on the list, when there is less than one
// replica, or when ShardMap::Validate refuses the list.
absl::Status ValidateMembers(const NodeId& self, int replicas,
                             const std::vector<MemberSpec>& list);

// Options for maps whose owner orders are long enough for View::walk_depth().
ShardMap::Options MapOptionsFor(int replicas);

}  // namespace kdn::placement

#endif  // KDN_PLACEMENT_MEMBERSHIP_H_
