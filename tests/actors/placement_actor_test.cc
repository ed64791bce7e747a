#include "actors/placement_actor.h"

#include <map>

#include "actors/lookup_actor.h"
#include "actors/node_actor.h"
#include "actors/store_actor.h"
#include "tests/actors/actors_fixture.h"

namespace kdn::actors {
namespace {

using placement::MemberState;

// The node actors that listen, by control port.
using Listeners = std::map<uint16_t, NodeActor>;

// Answers as the connector of a node does, within the process. A dial of a node
// without a listener fails, and a dial of a null listener finds a peer that
// does not prove its name.
ConnectorActor::behavior_type MakeConnector(ConnectorActor::pointer,
                                            const Listeners* listeners) {
  return {
      [listeners](const DialCall& call) -> caf::result<caf::strong_actor_ptr> {
        const auto listener = listeners->find(call.addresses.control_port);
        if (listener == listeners->end()) {
          return caf::make_error(caf::sec::cannot_connect_to_node);
        }
        if (!listener->second) {
          return RefusalOf(absl::PermissionDeniedError("no such name"));
        }
        return caf::actor_cast<caf::strong_actor_ptr>(listener->second);
      },
      [](const DialEnd&) {}};
}

class PlacementActorTest : public ActorsTest {
 protected:
  PlacementActorTest() {
    for (const NodeId& id : {b_, c_}) SpawnNode(id);
    connector_ = system_.spawn(MakeConnector, &listeners_);
  }
  ~PlacementActorTest() override {
    EndStores();
    Advance(absl::Seconds(2));  // past every deadline
    caf::anon_send_exit(placement_, caf::exit_reason::user_shutdown);
    caf::anon_send_exit(connector_, caf::exit_reason::user_shutdown);
    listeners_.clear();
    Run();
  }

  static placement::MemberSpec SpecOf(const NodeId& id) {
    placement::MemberSpec spec;
    spec.id = id;
    spec.addresses = {"host-" + id.name(), PortOf(id),
                      static_cast<uint16_t>(PortOf(id) + 100), "gateway"};
    return spec;
  }
  static uint16_t PortOf(const NodeId& id) {
    return static_cast<uint16_t>(id.name()[0]);
  }
  static std::vector<placement::MemberSpec> List(
      const std::vector<NodeId>& ids) {
    std::vector<placement::MemberSpec> list;
    for (const NodeId& id : ids) list.push_back(SpecOf(id));
    return list;
  }
  void Listen(const NodeId& id) { listeners_[PortOf(id)] = live_[id].node; }
  // Spawns the placement actor of "a", with `ids` as the member list.
  void Start(const std::vector<NodeId>& ids) {
    auto membership =
        placement::Membership::Create({.self = a_}, List(ids), clock_.Now());
    ASSERT_TRUE(membership.ok()) << membership.status();
    PeerHandles own;
    own.storage = live_[a_].storage;
    node_->view.Set(std::make_shared<const ClusterView>(membership->view(),
                                                        LiveNodes{{a_, own}}));
    placement_ =
        system_.spawn(MakePlacementActor,
                      PlacementActorDeps{node_.get(), *std::move(membership),
                                         own, connector_});
    Run();
  }
  // Waits until a map is due, and has the pool build it.
  void BuildMap() {
    Advance(absl::Milliseconds(80));
    RunWithPool();
  }
  void SetMembers(const std::vector<NodeId>& ids) {
    caf::anon_send(placement_, MembersCall{List(ids)});
    Run();
  }
  std::shared_ptr<const ClusterView> Now() { return node_->view.Get(); }
  MemberState StateOf(const NodeId& id) { return Now()->Find(id)->state; }
  LookupResult Lookup(int i) {
    Answer<std::vector<LookupResult>> answer;
    system_.spawn(
        MakeLookupActor, node_.get(),
        LookupJob{{RefOf(i)}, "t", In(absl::Seconds(1)), answer.AsReply()});
    Run();
    EXPECT_EQ(answer.times, 1);
    return answer.value.ok() ? (*answer.value)[0] : LookupResult();
  }
  // Drops all pushes. A dropped push fails, and its store tries the next node.
  void EndStores() {
    while (!transport_.pushes.empty()) {
      transport_.pushes.clear();
      Run();
    }
  }
  // Begins a store of chunk `i` at "a". Returns the first peer that it is
  // pushed to.
  NodeId FirstPushOf(int i) {
    EndStores();
    system_.spawn(
        MakeStoreActor, node_.get(),
        StoreJob{RefOf(i), InfoOf(i, 64), nullptr,
                 delivery::BuildPlace::kPassing, Durability::kReplicated,
                 absl::InfinitePast(), In(absl::Seconds(1)), SessionId(),
                 stored_.AsReply()});
    Run();
    return transport_.pushes.empty() ? NodeId()
                                     : transport_.pushes[0].request.peer;
  }

  Listeners listeners_;
  ConnectorActor connector_;
  PlacementActor placement_;
  Answer<StoreReceipt> stored_;
};

TEST_F(PlacementActorTest, APeerServesOnceTheMapWithItIsBuilt) {
  Listen(b_);
  Start({a_, b_, c_});
  EXPECT_EQ(StateOf(b_), MemberState::kJoining);
  EXPECT_EQ(StateOf(c_), MemberState::kAway);
  EXPECT_TRUE(Now()->live.contains(b_));
  EXPECT_EQ(Now()->map().members().size(), 1u) << "the last map serves";
  BuildMap();
  EXPECT_EQ(StateOf(b_), MemberState::kServing);
  EXPECT_EQ(Now()->map().members().size(), 2u);
  EXPECT_EQ(Now()->live.at(b_).storage, live_[b_].storage);
  EXPECT_EQ(Now()->live.at(b_).version,
            placement::PeerVersionsOfThisBuild().newest);
}

TEST_F(PlacementActorTest, MembersComeAndGoAtRunTime) {
  Listen(b_);
  Listen(c_);
  Start({a_, b_});
  BuildMap();
  EXPECT_EQ(Now()->Find(c_), nullptr);
  EXPECT_TRUE(absl::IsNotFound(Now()->BulkAddressOf(c_).status()));

  SetMembers({a_, b_, c_});
  EXPECT_EQ(*Now()->BulkAddressOf(c_), "host-c:199")
      << "the transport finds it";
  BuildMap();
  const int i = NumberOwnedBy({c_, b_});
  EXPECT_EQ(FirstPushOf(i), c_);
  Put(live_[c_].storage[0], i, 4096);
  EXPECT_EQ(Lookup(i).node, c_);

  SetMembers({a_, b_});
  EXPECT_EQ(Now()->Find(c_), nullptr);
  EXPECT_FALSE(Now()->live.contains(c_));
  EXPECT_EQ(transport_.failed, (std::vector<NodeId>{c_}));
  EXPECT_TRUE(absl::IsNotFound(Now()->BulkAddressOf(c_).status()));
  EXPECT_EQ(FirstPushOf(i), b_) << "before the new map is built";
  BuildMap();
  EXPECT_EQ(Now()->map().members().size(), 2u);
  EXPECT_FALSE(Lookup(i).hit);
}

TEST_F(PlacementActorTest, AListWithoutThisNodeChangesNothing) {
  Listen(b_);
  Start({a_, b_});
  BuildMap();
  const Epoch before = Now()->epoch();
  SetMembers({b_, c_});
  EXPECT_EQ(Now()->epoch(), before);
}

TEST_F(PlacementActorTest, ALostPeerIsAwayAtOnceAndDialledAgain) {
  Listen(b_);
  Listen(c_);
  Start({a_, b_, c_});
  BuildMap();
  const placement::Incarnation before = Now()->Find(b_)->incarnation;
  caf::anon_send_exit(live_[b_].node, caf::exit_reason::kill);
  listeners_.erase(PortOf(b_));
  Run();
  EXPECT_EQ(StateOf(b_), MemberState::kAway);
  EXPECT_FALSE(Now()->live.contains(b_));
  EXPECT_EQ(transport_.failed, (std::vector<NodeId>{b_}));
  BuildMap();
  EXPECT_EQ(Now()->map().members().size(), 2u);

  const auto view = Now();
  SpawnNode(b_);
  node_->view.Set(view);  // SpawnNode has set another one
  Listen(b_);
  Advance(absl::Milliseconds(600));
  RunWithPool();
  EXPECT_EQ(StateOf(b_), MemberState::kServing);
  EXPECT_GT(Now()->Find(b_)->incarnation, before);
}

TEST_F(PlacementActorTest, APeerOfAnotherNameIsNotAMember) {
  listeners_[PortOf(b_)] = live_[c_].node;
  Start({a_, b_});
  BuildMap();
  EXPECT_EQ(StateOf(b_), MemberState::kAway);
  EXPECT_FALSE(Now()->live.contains(b_));
}

TEST_F(PlacementActorTest, ANodeOfTheSameNameRefuses) {
  NodeActor twin = system_.spawn(
      MakeNodeActor,
      NodeActorDeps{node_.get(), live_[b_].storage, nullptr, clock_.Now()});
  listeners_[PortOf(b_)] = twin;
  Start({a_, b_});
  EXPECT_EQ(StateOf(b_), MemberState::kAway);
  std::optional<std::string> refusal;
  caf::scoped_actor asker(system_);
  auto join = asker->request(twin, caf::infinite, JoinAtom::value,
                             JoinQuery{ToWire(node_->IntroductionTo(b_))});
  Run();
  join.receive([](const PeerInfo&) { FAIL() << "welcomed"; },
               [&](const caf::error& why) { refusal = RefusalIn(why); });
  ASSERT_TRUE(refusal);
  EXPECT_NE(refusal->find("two nodes have the id a"), std::string::npos);
  caf::anon_send_exit(twin, caf::exit_reason::user_shutdown);
}

TEST_F(PlacementActorTest, ANodeOfAnotherClusterIsRefused) {
  Listen(b_);
  Start({a_, b_});
  BuildMap();
  ASSERT_EQ(StateOf(b_), MemberState::kServing);
  caf::scoped_actor asker(system_);
  for (const bool same : {true, false}) {
    placement::Introduction stranger = node_->IntroductionTo(a_);
    stranger.node = NodeId("x");
    if (!same) stranger.cluster = "another";
    std::optional<std::string> refusal;
    auto join = asker->request(live_[b_].node, caf::infinite, JoinAtom::value,
                               JoinQuery{ToWire(stranger)});
    Run();
    join.receive([](const PeerInfo&) {},
                 [&](const caf::error& why) { refusal = RefusalIn(why); });
    ASSERT_EQ(refusal.has_value(), !same);
    if (same) continue;
    EXPECT_NE(refusal->find("'another'"), std::string::npos);
  }
}

TEST(RefusalTest, OtherErrorsAreNoRefusals) {
  EXPECT_EQ(RefusalIn(RefusalOf(absl::FailedPreconditionError("no"))), "no");
  EXPECT_FALSE(RefusalIn(caf::make_error(caf::sec::request_timeout)));
  EXPECT_FALSE(RefusalIn(caf::make_error(caf::sec::invalid_argument)));
}

}  // namespace
}  // namespace kdn::actors
