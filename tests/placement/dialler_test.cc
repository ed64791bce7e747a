#include "placement/dialler.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

namespace kdn::placement {
namespace {

using Kind = PeerAction::Kind;

const NodeId kB("b");
const NodeId kC("c");
constexpr absl::Duration kRetry = absl::Milliseconds(250);

MemberSpec SpecOf(const NodeId& id, uint16_t port = 1) {
  MemberSpec spec;
  spec.id = id;
  spec.addresses.host = "host-" + id.name();
  spec.addresses.control_port = port;
  return spec;
}

class DiallerTest : public testing::Test {
 protected:
  // Takes the actions that are due now, and expects exactly one.
  PeerAction Only() {
    std::vector<PeerAction> actions = dialler_.TakeActions(now_);
    dialler_.CheckInvariants();
    EXPECT_EQ(actions.size(), 1u);
    return actions.empty() ? PeerAction{} : actions[0];
  }
  bool Idle() { return dialler_.TakeActions(now_).empty(); }
  // Dials "b" until it is up. Returns the id of the dial.
  DialId BringUp() {
    dialler_.SetPeers({SpecOf(kB)}, now_);
    const DialId dial = Only().dial;
    dialler_.OnConnected(kB, dial);
    EXPECT_EQ(Only().kind, Kind::kJoin);
    dialler_.OnAnswer(kB, dial, JoinClaim{kB, 2}, now_);
    EXPECT_EQ(Only().kind, Kind::kWelcome);
    EXPECT_TRUE(dialler_.IsUp(kB));
    return dial;
  }

  Dialler dialler_{Dialler::Options{.retry = kRetry}};
  absl::Time now_ = absl::UnixEpoch();
};

TEST_F(DiallerTest, APeerIsDialledAtOnceAndJoined) {
  BringUp();
  EXPECT_TRUE(Idle());
  EXPECT_EQ(dialler_.wake(), absl::InfiniteFuture());
}

TEST_F(DiallerTest, AFailureIsFollowedByAnotherDial) {
  dialler_.SetPeers({SpecOf(kB)}, now_);
  const PeerAction first = Only();
  EXPECT_EQ(first.kind, Kind::kConnect);
  EXPECT_EQ(first.addresses.host, "host-b");
  dialler_.OnFailed(kB, first.dial, now_);
  EXPECT_EQ(dialler_.wake(), now_ + kRetry);
  EXPECT_TRUE(Idle());
  now_ += kRetry;
  const PeerAction second = Only();
  EXPECT_EQ(second.kind, Kind::kConnect);
  EXPECT_GT(second.dial, first.dial);
}

TEST_F(DiallerTest, AnAnswerOfAnEarlierDialChangesNothing) {
  dialler_.SetPeers({SpecOf(kB)}, now_);
  const DialId first = Only().dial;
  dialler_.OnConnected(kB, first);
  Only();
  dialler_.OnFailed(kB, first, now_);
  now_ += kRetry;
  const DialId second = Only().dial;
  dialler_.OnAnswer(kB, first, JoinClaim{kB, 2}, now_);
  dialler_.OnFailed(kB, first, now_);
  dialler_.OnDown(kB, first, now_);
  EXPECT_TRUE(Idle());
  dialler_.OnConnected(kB, second);
  EXPECT_EQ(Only().kind, Kind::kJoin);
}

TEST_F(DiallerTest, ALostPeerIsForgottenAndDialledAgain) {
  const DialId dial = BringUp();
  dialler_.OnDown(kB, dial, now_);
  EXPECT_EQ(Only().kind, Kind::kForget);
  EXPECT_FALSE(dialler_.IsUp(kB));
  now_ += kRetry;
  EXPECT_EQ(Only().kind, Kind::kConnect);
}

TEST_F(DiallerTest, AWrongIdIsLoggedOnceAndDialledEverMoreRarely) {
  dialler_.SetPeers({SpecOf(kB)}, now_);
  int complaints = 0;
  absl::Duration wait = kRetry;
  for (int round = 0; round < 8; ++round) {
    const DialId dial = Only().dial;
    dialler_.OnConnected(kB, dial);
    Only();
    dialler_.OnAnswer(kB, dial, JoinClaim{kC, 2}, now_);
    for (const PeerAction& action : dialler_.TakeActions(now_)) {
      EXPECT_EQ(action.kind, Kind::kComplain);
      EXPECT_NE(action.reason.find("host-b:1 is configured as b but says that "
                                   "it is 'c'"),
                std::string::npos)
          << action.reason;
      ++complaints;
    }
    EXPECT_EQ(dialler_.wake(), now_ + wait);
    now_ += wait;
    wait = std::min(2 * wait, 16 * kRetry);
  }
  EXPECT_EQ(complaints, 1);
}

TEST_F(DiallerTest, ARefusalIsLoggedAgainWhenTheReasonChanges) {
  dialler_.SetPeers({SpecOf(kB)}, now_);
  std::vector<std::string> told;
  for (const char* reason : {"too old", "too old", "too young"}) {
    const DialId dial = Only().dial;
    dialler_.OnConnected(kB, dial);
    Only();
    dialler_.OnRefused(kB, dial, reason, now_);
    for (const PeerAction& action : dialler_.TakeActions(now_)) {
      told.push_back(action.reason);
    }
    now_ = dialler_.wake();
  }
  EXPECT_EQ(told, (std::vector<std::string>{"too old", "too young"}));
}

TEST_F(DiallerTest, APeerThatDoesNotProveItsNameIsLoggedOnce) {
  dialler_.SetPeers({SpecOf(kB)}, now_);
  const DialId dial = Only().dial;
  dialler_.OnRefused(kB, dial, "the certificate is not of b", now_);
  const PeerAction told = Only();
  EXPECT_EQ(told.kind, Kind::kComplain);
  EXPECT_EQ(told.reason, "the certificate is not of b");
  now_ = dialler_.wake();
  dialler_.OnRefused(kB, Only().dial, "the certificate is not of b", now_);
  EXPECT_TRUE(dialler_.TakeActions(now_).empty());
}

TEST_F(DiallerTest, APeerWithoutStorageIsNotJoined) {
  dialler_.SetPeers({SpecOf(kB)}, now_);
  const DialId dial = Only().dial;
  dialler_.OnConnected(kB, dial);
  Only();
  dialler_.OnAnswer(kB, dial, JoinClaim{kB, 0}, now_);
  EXPECT_EQ(Only().kind, Kind::kComplain);
  EXPECT_FALSE(dialler_.IsUp(kB));
}

TEST_F(DiallerTest, APeerTakenOffTheListIsForgotten) {
  const DialId dial = BringUp();
  dialler_.SetPeers({SpecOf(kC)}, now_);
  std::vector<PeerAction> actions = dialler_.TakeActions(now_);
  ASSERT_EQ(actions.size(), 2u);
  EXPECT_EQ(actions[0].kind, Kind::kForget);
  EXPECT_EQ(actions[0].peer, kB);
  EXPECT_EQ(actions[1].kind, Kind::kConnect);
  EXPECT_EQ(actions[1].peer, kC);
  dialler_.OnDown(kB, dial, now_);
  EXPECT_TRUE(Idle());
}

TEST_F(DiallerTest, ANewAddressIsDialledAndTheOldOneForgotten) {
  BringUp();
  dialler_.SetPeers({SpecOf(kB, 1)}, now_);
  EXPECT_TRUE(Idle()) << "nothing has changed";
  dialler_.SetPeers({SpecOf(kB, 2)}, now_);
  std::vector<PeerAction> actions = dialler_.TakeActions(now_);
  ASSERT_EQ(actions.size(), 2u);
  EXPECT_EQ(actions[0].kind, Kind::kForget);
  EXPECT_EQ(actions[1].kind, Kind::kConnect);
  EXPECT_EQ(actions[1].addresses.control_port, 2);
}

// Peers come and go, and their answers are random, early or late. A peer is up
// from its welcome until it is forgotten.
TEST_F(DiallerTest, WelcomesAndForgetsAlternate) {
  std::mt19937 random(3);
  const std::vector<NodeId> all{kB, kC, NodeId("d"), NodeId("e")};
  std::vector<PeerAction> open;  // connects and joins without an answer
  std::map<NodeId, DialId> up;
  for (int step = 0; step < 20000; ++step) {
    now_ += absl::Milliseconds(random() % 100);
    if (step % 50 == 0) {
      std::vector<MemberSpec> peers;
      for (const NodeId& id : all) {
        if (random() % 4 != 0) peers.push_back(SpecOf(id, 1 + random() % 2));
      }
      dialler_.SetPeers(peers, now_);
    }
    for (PeerAction& action : dialler_.TakeActions(now_)) {
      if (action.kind == Kind::kWelcome) {
        EXPECT_TRUE(up.emplace(action.peer, action.dial).second);
      } else if (action.kind == Kind::kForget) {
        EXPECT_EQ(up.erase(action.peer), 1u);
      } else if (action.kind != Kind::kComplain) {
        open.push_back(std::move(action));
      }
    }
    dialler_.CheckInvariants();
    for (const NodeId& id : all) {
      EXPECT_EQ(dialler_.IsUp(id), up.contains(id));
    }
    if (!up.empty() && random() % 8 == 0) {
      dialler_.OnDown(up.begin()->first, up.begin()->second, now_);
    }
    if (open.empty()) continue;
    std::swap(open[random() % open.size()], open.back());
    const PeerAction action = open.back();
    open.pop_back();
    if (random() % 4 == 0) {
      dialler_.OnFailed(action.peer, action.dial, now_);
    } else if (action.kind == Kind::kConnect) {
      dialler_.OnConnected(action.peer, action.dial);
    } else {
      const NodeId& name = random() % 8 == 0 ? kC : action.peer;
      dialler_.OnAnswer(action.peer, action.dial, JoinClaim{name, 1}, now_);
    }
  }
}

TEST(JudgeAskerTest, RefusesItsOwnIdAndAnEmptyId) {
  EXPECT_TRUE(JudgeAsker(kB, kC).ok());
  const absl::Status own = JudgeAsker(kB, kB);
  EXPECT_TRUE(absl::IsFailedPrecondition(own));
  EXPECT_NE(own.message().find("two nodes have the id b"), std::string::npos);
  EXPECT_TRUE(absl::IsFailedPrecondition(JudgeAsker(kB, NodeId())));
}

}  // namespace
}  // namespace kdn::placement
