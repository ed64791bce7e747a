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

// Everything that one node decides about membership: whom it dials (Dialler),
// which shard maps are built and when (MapPlanner), and what it believes about
// the cluster (View). No node leads: each sees for itself.
//
// Events and the time in; peer actions, builds and views out. The caller
// performs them after every event and at wake(). A view shows a lost or gained
// peer at once; shards change hands when the new map is built, and the last map
// serves until then. Pure; thread-compatible.
class Membership {
 public:
  struct Options {
    NodeId self;
    int replicas = 2;
    Dialler::Options dialling = {};
    absl::Duration coalesce = absl::Milliseconds(50);
  };

  // This node alone is live. Builds two maps. INVALID_ARGUMENT as
  // ValidateMembers.
  static absl::StatusOr<Membership> Create(Options options,
                                           std::vector<MemberSpec> list,
                                           absl::Time now);

  // The member list is now this one. INVALID_ARGUMENT, and the list before
  // stays, when ValidateMembers refuses the list.
  absl::Status OnMembers(std::vector<MemberSpec> list, absl::Time now);
  // What came of a PeerAction, as the functions of Dialler.
  void OnConnected(const NodeId& peer, DialId dial, absl::Time now);
  void OnAnswer(const NodeId& peer, DialId dial, const JoinClaim& claim,
                absl::Time now);
  void OnRefused(const NodeId& peer, DialId dial, const std::string& reason,
                 absl::Time now);
  void OnFailed(const NodeId& peer, DialId dial, absl::Time now);
  void OnDown(const NodeId& peer, DialId dial, absl::Time now);
  // The map of the set that TakeBuild named last is built.
  void OnMapBuilt(std::shared_ptr<const ShardMap> map, absl::Time now);

  // To be performed in this order, before the view is taken.
  std::vector<PeerAction> TakeActions(absl::Time now);
  // True once after every change of the view.
  bool TakeViewChanged();
  // A member set to build a map of now with map_options().
  std::optional<MapMembers> TakeBuild(absl::Time now);
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
  // Takes over what the dialler has decided.
  void Absorb(absl::Time now);
  // True when the action changes the view.
  bool TakeIn(const PeerAction& action);
  // Wants the maps of the present members and makes a view with those that are
  // built.
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

// INVALID_ARGUMENT: `self` is not on the list, fewer than one replica, or as
// ShardMap::Validate.
absl::Status ValidateMembers(const NodeId& self, int replicas,
                             const std::vector<MemberSpec>& list);

// Orders are long enough for View::walk_depth().
ShardMap::Options MapOptionsFor(int replicas);

}  // namespace kdn::placement

#endif  // KDN_PLACEMENT_MEMBERSHIP_H_
