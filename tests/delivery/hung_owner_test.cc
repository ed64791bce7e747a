// FetchSession, ReadOrder and PeerHealth together, in simulated time: how much
// time a hung owner costs the retrieves of a node.
#include <gtest/gtest.h>

#include <map>
#include <utility>
#include <variant>
#include <vector>

#include "delivery/fetch_session.h"
#include "delivery/read_order.h"

namespace kdn::delivery {
namespace {

const NodeId kSelf("self");
const NodeId kFirst("first");
const NodeId kSecond("second");
const absl::Time kStart = absl::UnixEpoch() + absl::Hours(1);
constexpr absl::Duration kAnswerTime = absl::Milliseconds(5);
constexpr absl::Duration kTimeout = absl::Seconds(2);
constexpr absl::Duration kPause = absl::Milliseconds(100);

// A node that makes one retrieve after the other, and its two peers. The first
// owner does not answer while it is hung.
class Simulation {
 public:
  // One retrieve of one chunk. Returns the peers that were asked, in this
  // order.
  std::vector<NodeId> Retrieve() {
    FetchTask task;
    task.self = kSelf;
    task.read_orders = {ReadOrder({kFirst, kSecond}, kSelf, 2, Grades())};
    task.chunk_bytes = 100;
    task.memory_bytes_max = 100;
    task.deadline = now + kTimeout;
    FetchSession session(std::move(task));
    session.OpenWindow();
    std::vector<NodeId> asked;
    while (!session.done()) {
      const auto unknown = [](const NodeId&) { return std::nullopt; };
      for (const FetchAction& action : session.TakeActions(now, unknown)) {
        const auto* fetch = std::get_if<FetchFrom>(&action);
        if (fetch == nullptr) continue;
        asked.push_back(fetch->peer);
        session.OnAttempt(0, fetch->peer, Fetch(*fetch));
      }
    }
    now += kPause;
    return asked;
  }

  absl::Time now = kStart;
  bool is_hung = false;

 private:
  AttemptResult Fetch(const FetchFrom& fetch) {
    PeerHealth& health = health_[fetch.peer];
    const absl::Time began = now;
    health.OnAsk(began);
    health.OnBegin(began);
    AttemptResult result;
    if (is_hung && fetch.peer == kFirst) {
      now = fetch.target.deadline;
      health.OnEnd(FetchEnd::kLate, false, began, now);
      result.status = absl::DeadlineExceededError("no answer");
    } else {
      now += kAnswerTime;
      health.OnAnswer(began, now);
      health.OnEnd(FetchEnd::kDone, true, began, now);
    }
    return result;
  }
  PeerGrades Grades() {
    PeerGrades grades;
    for (const auto& [id, health] : health_) {
      grades.emplace(id, health.GradeAt(now));
    }
    return grades;
  }

  std::map<NodeId, PeerHealth> health_;
};

TEST(HungOwnerTest, CostsSomeReadsTheirTimeAndNotEveryRead) {
  Simulation simulation;
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(simulation.Retrieve(), std::vector<NodeId>{kFirst});
  }
  simulation.is_hung = true;
  const absl::Time begin = simulation.now;
  int retrieves = 0;
  int waited = 0;
  for (; simulation.now < begin + absl::Minutes(2); ++retrieves) {
    const std::vector<NodeId> asked = simulation.Retrieve();
    EXPECT_EQ(asked.back(), kSecond) << "every chunk is delivered";
    if (asked.front() == kFirst) ++waited;
  }
  // The owner is tried again after 1, 2, 4, 8 and 16 seconds, and then every 30
  // seconds.
  EXPECT_LE(waited, 9);
  EXPECT_GE(waited, 5) << "the owner is tried again";
  EXPECT_GT(retrieves, 900);
  // The owner recovers: it is used again within kBackoffMax, and from then on.
  simulation.is_hung = false;
  const absl::Time back = simulation.now;
  while (simulation.Retrieve().front() != kFirst) {
  }
  EXPECT_LE(simulation.now - back, PeerHealth::kBackoffMax + absl::Seconds(1));
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(simulation.Retrieve(), std::vector<NodeId>{kFirst});
  }
}

// Fetches with long deadlines hold all connections to a hung owner, and the
// fetches behind them never begin.
TEST(HungOwnerTest, IsPassedOverWhileItsFetchesHoldAllConnections) {
  constexpr int kConnections = 4;
  PeerHealth hung;
  int asked = 0;
  for (absl::Time now = kStart; now < kStart + absl::Minutes(2);
       now += kPause) {
    const PeerGrades grades = {{kFirst, hung.GradeAt(now)}};
    const auto order = ReadOrder({kFirst, kSecond}, kSelf, 2, grades);
    if (order.front() != kFirst) continue;
    hung.OnAsk(now);
    if (asked++ < kConnections) hung.OnBegin(now);
  }
  const auto at_first = static_cast<int>(PeerHealth::kSilence / kPause);
  EXPECT_GT(asked, at_first) << "the owner is tried again";
  EXPECT_LE(asked, at_first + 5);
}

TEST(HungOwnerTest, TheSameEventsGiveTheSameTrace) {
  const auto trace = [] {
    Simulation simulation;
    std::vector<std::vector<NodeId>> asked;
    for (int i = 0; i < 300; ++i) {
      simulation.is_hung = i / 50 % 2 == 1;
      asked.push_back(simulation.Retrieve());
    }
    return asked;
  };
  EXPECT_EQ(trace(), trace());
}

}  // namespace
}  // namespace kdn::delivery
