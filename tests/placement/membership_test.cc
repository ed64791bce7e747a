#include "placement/membership.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <utility>

namespace kdn::placement {
namespace {

using Kind = PeerAction::Kind;

const NodeId kA("a");
const NodeId kB("b");
const NodeId kC("c");
const NodeId kD("d");
constexpr absl::Duration kWait = absl::Milliseconds(50);

std::vector<MemberSpec> List(const std::vector<NodeId>& ids) {
  std::vector<MemberSpec> list;
  for (const NodeId& id : ids) {
    list.emplace_back();
    list.back().id = id;
    list.back().addresses.host = id.name();
  }
  return list;
}

// Drives the membership of one node without a network. Peers in `reachable`
// connect and answer; other peers fail. Maps are built when the test says so.
class Driver {
 public:
  explicit Driver(const std::vector<MemberSpec>& list, NodeId self = kA)
      : membership_(
            *Membership::Create({.self = std::move(self)}, list, now_)) {
    membership_.TakeViewChanged();
  }

  // Performs all actions that are due. Builds no map.
  void Run() {
    for (bool more = true; more;) {
      more = false;
      for (const PeerAction& action : membership_.TakeActions(now_)) {
        more = true;
        Perform(action);
      }
      membership_.CheckInvariants();
    }
  }
  bool BuildOne() {
    const auto set = membership_.TakeBuild(now_);
    if (!set) return false;
    absl::StatusOr<ShardMap> map =
        ShardMap::Build(*set, membership_.map_options());
    EXPECT_TRUE(map.ok()) << map.status();
    membership_.OnMapBuilt(std::make_shared<const ShardMap>(*std::move(map)),
                           now_);
    membership_.CheckInvariants();
    ++builds;
    return true;
  }
  void Settle() {
    Run();
    now_ += kWait;
    while (BuildOne()) {
    }
  }
  void Lose(const NodeId& peer) {
    membership_.OnDown(peer, up.at(peer), now_);
    Run();
  }
  void Advance(absl::Duration time) { now_ += time; }
  absl::Time now() const { return now_; }

  Membership& operator*() { return membership_; }
  Membership* operator->() { return &membership_; }
  MemberState StateOf(const NodeId& id) {
    return membership_.view().Find(id)->state;
  }
  std::vector<NodeId> InMap() {
    std::vector<NodeId> ids;
    for (const MapMember& member : membership_.view().map().members()) {
      ids.push_back(member.id);
    }
    return ids;
  }

  std::set<NodeId> reachable;
  std::map<NodeId, DialId> up;
  int builds = 0;

 private:
  void Perform(const PeerAction& action) {
    switch (action.kind) {
      case Kind::kConnect:
        if (reachable.contains(action.peer)) {
          return membership_.OnConnected(action.peer, action.dial, now_);
        }
        return membership_.OnFailed(action.peer, action.dial, now_);
      case Kind::kJoin:
        return membership_.OnAnswer(action.peer, action.dial,
                                    JoinClaim{action.peer, 2}, now_);
      case Kind::kWelcome:
        up[action.peer] = action.dial;
        return;
      case Kind::kForget:
        EXPECT_EQ(up.erase(action.peer), 1u);
        return;
      case Kind::kComplain:
        return;
    }
  }

  absl::Time now_ = absl::UnixEpoch();
  Membership membership_;
};

TEST(MembershipTest, BeginsAloneAndServes) {
  Driver node(List({kA, kB, kC}));
  EXPECT_EQ(node.StateOf(kA), MemberState::kServing);
  EXPECT_EQ(node.StateOf(kB), MemberState::kAway);
  EXPECT_EQ(node.InMap(), (std::vector<NodeId>{kA}));
  node->CheckInvariants();
}

TEST(MembershipTest, APeerJoinsAtOnceAndServesOnceItsMapIsBuilt) {
  Driver node(List({kA, kB, kC}));
  node.reachable = {kB};
  const Epoch first = node->view().epoch();
  node.Run();
  EXPECT_TRUE(node->TakeViewChanged());
  EXPECT_FALSE(node->TakeViewChanged());
  EXPECT_GT(node->view().epoch(), first);
  EXPECT_EQ(node.StateOf(kB), MemberState::kJoining);
  EXPECT_EQ(node.InMap(), (std::vector<NodeId>{kA})) << "the last map serves";
  EXPECT_FALSE(node.BuildOne()) << "more changes may come";
  node.Settle();
  EXPECT_EQ(node.StateOf(kB), MemberState::kServing);
  EXPECT_EQ(node.InMap(), (std::vector<NodeId>{kA, kB}));
}

TEST(MembershipTest, ALostPeerIsAwayAtOnceAndItsShardsMoveLater) {
  Driver node(List({kA, kB, kC}));
  node.reachable = {kB, kC};
  node.Settle();
  const Incarnation before = node->view().Find(kB)->incarnation;
  node.reachable = {kC};
  node.Lose(kB);
  EXPECT_EQ(node.StateOf(kB), MemberState::kAway);
  EXPECT_EQ(node.InMap(), (std::vector<NodeId>{kA, kB, kC}));
  node.Settle();
  EXPECT_EQ(node.InMap(), (std::vector<NodeId>{kA, kC}));
  node.reachable = {kB, kC};
  node.Advance(absl::Seconds(1));
  node.Settle();
  EXPECT_EQ(node.StateOf(kB), MemberState::kServing);
  EXPECT_NE(node->view().Find(kB)->incarnation, before);
}

TEST(MembershipTest, ANodeThatFlapsGetsTheSameMapBack) {
  Driver node(List({kA, kB, kC}));
  node.reachable = {kB};
  node.Settle();
  const auto with_b = node->view().parts().map;
  const int builds = node.builds;
  node.Lose(kB);
  node.Settle();
  node.Advance(absl::Seconds(1));
  node.Run();
  EXPECT_EQ(node->view().parts().map, with_b) << "without a wait";
  EXPECT_EQ(node.builds, builds)
      << "the map of this node alone is there from the start";
}

TEST(MembershipTest, MembersThatComeTogetherCostOneBuild) {
  Driver node(List({kA, kB, kC, kD}));
  node.reachable = {kB, kC};
  node.Settle();
  EXPECT_EQ(node.InMap(), (std::vector<NodeId>{kA, kB, kC}));
  EXPECT_EQ(node.builds, 1);
  node.reachable = {kB, kC, kD};
  node.Advance(absl::Seconds(1));
  node.Settle();
  EXPECT_EQ(node.InMap(), (std::vector<NodeId>{kA, kB, kC, kD}));
  EXPECT_EQ(node.builds, 1) << "the map of all was there from the start";
}

TEST(MembershipTest, MembersComeAndGoAtRunTime) {
  Driver node(List({kA, kB}));
  node.reachable = {kB, kC};
  node.Settle();
  ASSERT_TRUE(node->OnMembers(List({kA, kB, kC}), node.now()).ok());
  EXPECT_EQ(node.StateOf(kC), MemberState::kAway);
  node.Settle();
  EXPECT_EQ(node.InMap(), (std::vector<NodeId>{kA, kB, kC}));
  ASSERT_TRUE(node->OnMembers(List({kA, kC}), node.now()).ok());
  node.Run();
  EXPECT_FALSE(node.up.contains(kB)) << "it was forgotten";
  EXPECT_EQ(node->view().Find(kB), nullptr);
  node.Settle();
  EXPECT_EQ(node.InMap(), (std::vector<NodeId>{kA, kC}));
}

TEST(MembershipTest, AChangedWeightMakesANewMap) {
  Driver node(List({kA, kB}));
  node.reachable = {kB};
  node.Settle();
  std::vector<MemberSpec> list = List({kA, kB});
  list[1].weight = 3.0;
  list[1].leaving = true;
  ASSERT_TRUE(node->OnMembers(list, node.now()).ok());
  EXPECT_EQ(node.StateOf(kB), MemberState::kLeaving);
  node.Settle();
  EXPECT_EQ(node->view().map().members()[1].weight, 3.0);
  EXPECT_GT(node->view().map().CountsOf(kB, 1).primary, kShards / 2)
      << "a leaving member owns its shards until it is off the list";
}

TEST(MembershipTest, RefusesAListWithoutItself) {
  Driver node(List({kA, kB}));
  const View before = node->view();
  EXPECT_TRUE(absl::IsInvalidArgument(node->OnMembers(List({kB}), node.now())));
  EXPECT_TRUE(
      absl::IsInvalidArgument(node->OnMembers(List({kA, kA}), node.now())));
  std::vector<MemberSpec> weightless = List({kA});
  weightless[0].weight = 0.0;
  EXPECT_TRUE(absl::IsInvalidArgument(node->OnMembers(weightless, node.now())));
  EXPECT_EQ(node->view().parts(), before.parts());
  EXPECT_FALSE(Membership::Create({.self = kA}, List({kB}), {}).ok());
  EXPECT_FALSE(
      Membership::Create({.self = kA, .replicas = 0}, List({kA}), {}).ok());
}

TEST(MembershipTest, OrdersReachAsFarAsReadersWalk) {
  EXPECT_EQ(MapOptionsFor(2).order_length, 8);
  EXPECT_EQ(MapOptionsFor(16).order_length, 18);
}

// Two nodes that see the same members have the same owners, whatever each of
// them saw before.
TEST(MembershipTest, TheViewIsAFunctionOfTheMembers) {
  Driver one(List({kA, kB, kC, kD}));
  one.reachable = {kB, kC};
  one.Settle();
  Driver other(List({kC, kB, kA}), kB);
  other.reachable = {kA};
  other.Settle();
  other.reachable = {kA, kC};
  other.Advance(absl::Seconds(1));
  other.Settle();
  for (uint32_t shard = 0; shard < kShards; shard += 11) {
    ASSERT_EQ(one->view().map().Owners(ShardId(shard), 3),
              other->view().map().Owners(ShardId(shard), 3));
  }
}

// Random joins, losses, lists and builds. The view has a live owner for every
// chunk at any time. When no more events come, the map has exactly the members
// that answer.
TEST(MembershipTest, SettlesOnTheMembersThatAnswer) {
  std::mt19937 random(17);
  const std::vector<NodeId> all{kA, kB, kC, kD, NodeId("e")};
  Driver node(List(all));
  for (int step = 0; step < 600; ++step) {
    node.Advance(absl::Milliseconds(random() % 60));
    const NodeId& peer = all[1 + random() % 4];
    switch (random() % 5) {
      case 0:
        node.reachable.insert(peer);
        break;
      case 1:
        node.reachable.erase(peer);
        if (node.up.contains(peer)) node.Lose(peer);
        break;
      case 2: {
        std::vector<NodeId> some{kA};
        for (size_t i = 1; i < all.size(); ++i) {
          if (random() % 5 != 0) some.push_back(all[i]);
        }
        ASSERT_TRUE(node->OnMembers(List(some), node.now()).ok());
        break;
      }
      default:
        node.BuildOne();
    }
    node.Run();
    const ChunkKey key(
        DigestBuilder("x").Add(static_cast<uint64_t>(step)).Finish());
    const ChunkRef ref{key};
    const std::vector<NodeId> owners = node->view().OwnersOf(ref, 3);
    ASSERT_FALSE(owners.empty());
    for (const NodeId& owner : owners) {
      EXPECT_TRUE(node->view().IsLive(owner));
    }
  }
  ASSERT_TRUE(node->OnMembers(List(all), node.now()).ok());
  node.reachable = {kB, kD};
  for (const NodeId& id : {kC, NodeId("e")}) {
    if (node.up.contains(id)) node.Lose(id);
  }
  node.Advance(absl::Seconds(1));
  node.Settle();
  node.Settle();
  EXPECT_EQ(node.InMap(), (std::vector<NodeId>{kA, kB, kD}));
  EXPECT_TRUE(std::all_of(node->view().members().begin(),
                          node->view().members().end(),
                          [](const Member& member) {
                            return member.state == MemberState::kServing ||
                                   member.state == MemberState::kAway;
                          }));
}

}  // namespace
}  // namespace kdn::placement
