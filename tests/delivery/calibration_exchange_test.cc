#include "delivery/calibration_exchange.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace kdn::delivery {
namespace {

using codec::CalibrationId;
using testing::ElementsAre;
using testing::IsEmpty;

const NodeId kB("b");
const NodeId kC("c");
const absl::Time kBegin = absl::UnixEpoch() + absl::Hours(1);

CalibrationId IdOf(uint8_t number) {
  std::array<uint8_t, CalibrationId::kSize> bytes{};
  bytes[0] = number;
  return CalibrationId(bytes);
}

// The actions of one turn, in words.
std::vector<std::string> Words(CalibrationExchange& exchange, absl::Time now) {
  std::vector<std::string> words;
  for (const CalibrationAction& action : exchange.TakeActions(now)) {
    if (const auto* tell = std::get_if<TellCalibrations>(&action)) {
      words.push_back("tell " + tell->peer.name() + " " +
                      std::to_string(tell->ids.size()));
    } else if (const auto* fetch = std::get_if<FetchCalibration>(&action)) {
      words.push_back("fetch " + ShortHex(fetch->id).substr(0, 2) + " of " +
                      fetch->peer.name());
    } else {
      const auto& answer = std::get<AnswerCalibration>(action);
      words.push_back(
          "answer " + std::to_string(answer.call) + " " +
          std::string(absl::StatusCodeToString(answer.status.code())));
    }
  }
  exchange.CheckInvariants();
  return words;
}

class CalibrationExchangeTest : public testing::Test {
 protected:
  CalibrationExchange Make(CalibrationIds held = {}) {
    return CalibrationExchange(CalibrationExchange::Options(), std::move(held));
  }
  absl::Time now_ = kBegin;
};

TEST_F(CalibrationExchangeTest, APeerThatComesUpIsTold) {
  CalibrationExchange exchange = Make({IdOf(1)});
  EXPECT_THAT(Words(exchange, now_), IsEmpty());
  exchange.OnPeerUp(kB);
  EXPECT_THAT(Words(exchange, now_), ElementsAre("tell b 1"));
  EXPECT_THAT(Words(exchange, now_), IsEmpty()) << "one tell at a time";
  exchange.OnAnswer(kB, {IdOf(1)}, now_);
  EXPECT_THAT(Words(exchange, now_), IsEmpty());
  EXPECT_EQ(exchange.wake(), now_ + absl::Seconds(10));
  EXPECT_THAT(Words(exchange, exchange.wake()), ElementsAre("tell b 1"));
}

TEST_F(CalibrationExchangeTest, WhatAPeerHasIsFetched) {
  CalibrationExchange exchange = Make();
  exchange.OnPeerUp(kB);
  exchange.OnPeerUp(kC);
  Words(exchange, now_);
  exchange.OnPeerHas(kB, {IdOf(1)});
  EXPECT_THAT(Words(exchange, now_), ElementsAre("fetch 01 of b"));
  exchange.OnPeerHas(kC, {IdOf(1)});
  EXPECT_THAT(Words(exchange, now_), IsEmpty()) << "one fetch of each";
  exchange.OnHeld(IdOf(1));
  exchange.OnFetched(IdOf(1), now_);
  exchange.OnAnswer(kB, {IdOf(1)}, now_);
  exchange.OnAnswer(kC, {IdOf(1)}, now_);
  EXPECT_THAT(Words(exchange, now_), ElementsAre("tell b 1", "tell c 1"))
      << "the list changed while it was told";
}

TEST_F(CalibrationExchangeTest, AFailedFetchIsRepeatedAtAnotherHolder) {
  CalibrationExchange exchange = Make();
  exchange.OnPeerUp(kB);
  exchange.OnPeerUp(kC);
  Words(exchange, now_);
  exchange.OnPeerHas(kB, {IdOf(1)});
  exchange.OnPeerHas(kC, {IdOf(1)});
  EXPECT_THAT(Words(exchange, now_), ElementsAre("fetch 01 of b"));
  exchange.OnFetched(IdOf(1), now_);
  EXPECT_THAT(Words(exchange, now_), IsEmpty()) << "not at once";
  now_ = exchange.wake();
  EXPECT_THAT(Words(exchange, now_), ElementsAre("fetch 01 of c"));
  exchange.OnPeerDown(kC);
  exchange.OnFetched(IdOf(1), now_);
  EXPECT_EQ(exchange.wake(), now_ + absl::Seconds(1)) << "the pause doubles";
  EXPECT_THAT(Words(exchange, exchange.wake()), ElementsAre("fetch 01 of b"));
}

TEST_F(CalibrationExchangeTest, FewFetchesRunAtOneTimeAndNeededOnesFirst) {
  CalibrationExchange exchange = Make();
  exchange.OnPeerUp(kB);
  Words(exchange, now_);
  exchange.OnNeed(1, IdOf(4), now_ + absl::Seconds(5));
  exchange.OnPeerHas(kB, {IdOf(1), IdOf(2), IdOf(3), IdOf(4)});
  EXPECT_THAT(Words(exchange, now_),
              ElementsAre("fetch 04 of b", "fetch 01 of b"));
  exchange.OnHeld(IdOf(4));
  exchange.OnFetched(IdOf(4), now_);
  EXPECT_THAT(Words(exchange, now_),
              ElementsAre("fetch 02 of b", "answer 1 OK"));
}

TEST_F(CalibrationExchangeTest, SleepsWhileAllFetchesAreUnderWay) {
  CalibrationExchange exchange = Make();
  exchange.OnPeerUp(kB);
  Words(exchange, now_);
  exchange.OnPeerHas(kB, {IdOf(1)});
  Words(exchange, now_);
  exchange.OnFetched(IdOf(1), now_);
  exchange.OnPeerHas(kB, {IdOf(1), IdOf(2), IdOf(3)});
  EXPECT_THAT(Words(exchange, now_),
              ElementsAre("fetch 02 of b", "fetch 03 of b"));
  now_ += absl::Seconds(2);
  EXPECT_THAT(Words(exchange, now_), IsEmpty());
  EXPECT_GT(exchange.wake(), now_) << "01 is due, but has to wait";
}

TEST_F(CalibrationExchangeTest, ACallDoesNotWaitForWhatThisNodeRefuses) {
  CalibrationExchange exchange = Make();
  exchange.OnPeerUp(kB);
  exchange.OnPeerUp(kC);
  Words(exchange, now_);
  exchange.OnPeerHas(kB, {IdOf(1)});
  exchange.OnPeerHas(kC, {IdOf(1)});
  Words(exchange, now_);
  exchange.OnFetched(IdOf(1), now_, /*refused=*/true);
  exchange.OnNeed(1, IdOf(1), now_ + absl::Seconds(5));
  EXPECT_THAT(Words(exchange, now_),
              testing::Contains(testing::StartsWith("answer 1 NOT_FOUND")));
  now_ += absl::Minutes(30);
  EXPECT_THAT(Words(exchange, now_),
              testing::Not(testing::Contains(testing::StartsWith("fetch"))));
}

TEST_F(CalibrationExchangeTest, ACallEndsWhenEveryHolderHasFailed) {
  CalibrationExchange exchange = Make();
  exchange.OnPeerUp(kB);
  exchange.OnPeerUp(kC);
  Words(exchange, now_);
  exchange.OnPeerHas(kB, {IdOf(1)});
  exchange.OnPeerHas(kC, {IdOf(1)});
  exchange.OnNeed(1, IdOf(1), now_ + absl::Seconds(50));
  EXPECT_THAT(Words(exchange, now_), testing::Contains("fetch 01 of b"));
  exchange.OnFetched(IdOf(1), now_);
  now_ += absl::Seconds(1);
  EXPECT_THAT(Words(exchange, now_), testing::Contains("fetch 01 of c"));
  exchange.OnFetched(IdOf(1), now_);
  EXPECT_THAT(Words(exchange, now_),
              testing::Contains(testing::StartsWith("answer 1 NOT_FOUND")));
}

TEST_F(CalibrationExchangeTest, AStoreEndsWhenEveryLivePeerHasIt) {
  CalibrationExchange exchange = Make();
  exchange.OnPeerUp(kB);
  exchange.OnPeerUp(kC);
  Words(exchange, now_);
  exchange.OnHeld(IdOf(1));
  exchange.OnStore(7, IdOf(1), 2, now_ + absl::Seconds(5));
  exchange.OnPeerHas(kB, {IdOf(1)});
  EXPECT_THAT(Words(exchange, now_), IsEmpty());
  exchange.OnPeerHas(kC, {IdOf(1)});
  EXPECT_THAT(Words(exchange, now_), ElementsAre("answer 7 OK"));
}

TEST_F(CalibrationExchangeTest, AStoreDoesNotWaitForANodeThatDies) {
  CalibrationExchange exchange = Make();
  exchange.OnPeerUp(kB);
  Words(exchange, now_);
  exchange.OnHeld(IdOf(1));
  exchange.OnStore(7, IdOf(1), 2, now_ + absl::Seconds(5));
  EXPECT_THAT(Words(exchange, now_), IsEmpty());
  exchange.OnPeerDown(kB);
  EXPECT_THAT(Words(exchange, now_), ElementsAre("answer 7 OK"));
}

TEST_F(CalibrationExchangeTest, AtTheDeadlineAStoreNeedsAsManyNodesAsCopies) {
  for (const int copies : {2, 3}) {
    CalibrationExchange exchange = Make();
    exchange.OnPeerUp(kB);
    exchange.OnPeerUp(kC);
    Words(exchange, now_);
    exchange.OnHeld(IdOf(1));
    exchange.OnStore(7, IdOf(1), copies, now_ + absl::Seconds(1));
    exchange.OnPeerHas(kB, {IdOf(1)});
    EXPECT_THAT(Words(exchange, now_), IsEmpty());
    EXPECT_EQ(exchange.wake(), now_ + absl::Seconds(1));
    EXPECT_THAT(
        Words(exchange, exchange.wake()),
        ElementsAre(copies == 2 ? "answer 7 OK" : "answer 7 UNAVAILABLE"));
  }
}

TEST_F(CalibrationExchangeTest, ANeedAsksAllPeersAndEndsWhenNobodyHasIt) {
  CalibrationExchange exchange = Make();
  exchange.OnPeerUp(kB);
  exchange.OnPeerUp(kC);
  Words(exchange, now_);
  exchange.OnAnswer(kB, {}, now_);
  exchange.OnAnswer(kC, {}, now_);
  exchange.OnNeed(1, IdOf(9), now_ + absl::Seconds(5));
  EXPECT_THAT(Words(exchange, now_), ElementsAre("tell b 0", "tell c 0"));
  exchange.OnAnswer(kB, {}, now_);
  EXPECT_THAT(Words(exchange, now_), IsEmpty());
  exchange.OnAnswer(kC, {}, now_);
  EXPECT_THAT(Words(exchange, now_), ElementsAre("answer 1 NOT_FOUND"));
}

TEST_F(CalibrationExchangeTest, ANeedEndsAtItsDeadline) {
  CalibrationExchange exchange = Make();
  exchange.OnPeerUp(kB);
  Words(exchange, now_);
  exchange.OnNeed(1, IdOf(9), now_ + absl::Seconds(5));
  EXPECT_THAT(Words(exchange, now_), IsEmpty());
  EXPECT_EQ(exchange.wake(), now_ + absl::Seconds(5));
  EXPECT_THAT(Words(exchange, exchange.wake()),
              ElementsAre("answer 1 NOT_FOUND"));
}

TEST_F(CalibrationExchangeTest, AnAloneNodeAnswersAtOnce) {
  CalibrationExchange exchange = Make({IdOf(1)});
  exchange.OnNeed(1, IdOf(1), now_ + absl::Seconds(5));
  exchange.OnNeed(2, IdOf(2), now_ + absl::Seconds(5));
  exchange.OnStore(3, IdOf(1), 2, now_ + absl::Seconds(5));
  EXPECT_THAT(Words(exchange, now_),
              ElementsAre("answer 3 OK", "answer 1 OK", "answer 2 NOT_FOUND"));
}

// Nodes that drive one exchange each, over links that lose messages, and nodes
// that go down and come up.
class Network {
 public:
  Network(int nodes, unsigned seed) : random_(seed), nodes_(nodes) {
    for (int i = 0; i < nodes; ++i) Start(i);
  }
  void Start(int i) {
    nodes_[i].exchange = std::make_unique<CalibrationExchange>(
        CalibrationExchange::Options(), nodes_[i].disk);
    nodes_[i].up = true;
    for (int j = 0; j < size(); ++j) {
      if (j == i || !nodes_[j].up) continue;
      nodes_[j].exchange->OnPeerUp(Name(i));
      nodes_[i].exchange->OnPeerUp(Name(j));
    }
  }
  void Stop(int i) {
    nodes_[i].up = false;
    for (int j = 0; j < size(); ++j) {
      if (j != i && nodes_[j].up) nodes_[j].exchange->OnPeerDown(Name(i));
    }
  }
  void Add(int i, const CalibrationId& id) {
    nodes_[i].disk.insert(id);
    if (nodes_[i].up) nodes_[i].exchange->OnHeld(id);
  }
  void Step(bool lossy) {
    now_ += absl::Milliseconds(250);
    for (int i = 0; i < size(); ++i) {
      if (!nodes_[i].up) continue;
      for (const auto& action : nodes_[i].exchange->TakeActions(now_)) {
        Perform(i, action, lossy && random_() % 3 == 0);
      }
      nodes_[i].exchange->CheckInvariants();
    }
  }
  bool Agree() const {
    return std::all_of(nodes_.begin(), nodes_.end(), [this](const Node& node) {
      return node.up && node.disk == nodes_.front().disk;
    });
  }
  bool up(int i) const { return nodes_[i].up; }
  int size() const { return static_cast<int>(nodes_.size()); }
  size_t held(int i) const { return nodes_[i].disk.size(); }

 private:
  struct Node {
    std::unique_ptr<CalibrationExchange> exchange;
    CalibrationIds disk;
    bool up = false;
  };
  static NodeId Name(int i) { return NodeId("n" + std::to_string(i)); }
  static int NumberOf(const NodeId& name) {
    return std::stoi(name.name().substr(1));
  }
  void Perform(int i, const CalibrationAction& action, bool lost) {
    CalibrationExchange& here = *nodes_[i].exchange;
    if (const auto* tell = std::get_if<TellCalibrations>(&action)) {
      Node& there = nodes_[NumberOf(tell->peer)];
      if (lost || !there.up) return here.OnNoAnswer(tell->peer, now_);
      there.exchange->OnPeerHas(Name(i), tell->ids);
      here.OnAnswer(tell->peer, there.exchange->held(), now_);
    } else if (const auto* fetch = std::get_if<FetchCalibration>(&action)) {
      const Node& there = nodes_[NumberOf(fetch->peer)];
      if (!lost && there.up && there.disk.count(fetch->id) > 0) {
        Add(i, fetch->id);
      }
      here.OnFetched(fetch->id, now_);
    }
  }

  std::mt19937 random_;
  std::vector<Node> nodes_;
  absl::Time now_ = kBegin;
};

TEST(CalibrationNetworkTest, AllNodesEndUpWithAllCalibrations) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    std::mt19937 random(seed);
    Network network(4, seed);
    network.Add(0, IdOf(99));
    for (int step = 0; step < 60; ++step) {
      const int node = static_cast<int>(random() % 4);
      if (random() % 4 == 0) {
        network.up(node) ? network.Stop(node) : network.Start(node);
      } else if (random() % 4 == 0 && network.up(node)) {
        network.Add(node, IdOf(static_cast<uint8_t>(1 + random() % 10)));
      }
      network.Step(/*lossy=*/true);
    }
    for (int node = 0; node < 4; ++node) {
      if (!network.up(node)) network.Start(node);
    }
    // No event but the time: what was lost is told again.
    for (int step = 0; step < 400 && !network.Agree(); ++step) {
      network.Step(/*lossy=*/false);
    }
    EXPECT_TRUE(network.Agree()) << "seed " << seed;
    EXPECT_GT(network.held(3), 0u);
  }
}

}  // namespace
}  // namespace kdn::delivery
