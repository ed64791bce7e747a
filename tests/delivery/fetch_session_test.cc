#include "delivery/fetch_session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>
#include <utility>

#include "delivery/peer_transport.h"

namespace kdn::delivery {
namespace {

const NodeId kSelf("self");
const NodeId kPeer("peer");
const NodeId kOther("other");
using Orders = std::vector<std::vector<NodeId>>;

AttemptResult Ok(uint64_t version = 1) {
  AttemptResult result;
  result.version = ObjectVersion(version);
  result.announced = true;
  return result;
}

AttemptResult Fails(absl::Status status) {
  AttemptResult result;
  result.status = std::move(status);
  return result;
}

const absl::Time kNow = absl::UnixEpoch() + absl::Hours(1);

FetchTask TaskOf(Orders orders, uint64_t chunk_bytes, uint64_t memory_bytes) {
  FetchTask task;
  task.self = kSelf;
  task.read_orders = std::move(orders);
  task.chunk_bytes = chunk_bytes;
  task.memory_bytes_max = memory_bytes;
  task.deadline = kNow + absl::Seconds(2);
  return task;
}

// A FetchSession, its actions so far, and its answer.
class Driven {
 public:
  Driven(Orders orders, uint64_t chunk_bytes, uint64_t memory_bytes)
      : Driven(TaskOf(std::move(orders), chunk_bytes, memory_bytes)) {}
  explicit Driven(FetchTask task) : session(std::move(task)) {}

  // Takes the session's actions. Returns the tries to make, grouped by node.
  std::vector<Ask> TakeAsks() {
    std::vector<Ask> asks;
    Ask here{kSelf, {}};
    const auto rate_of = [this](const NodeId&) { return rate; };
    for (const FetchAction& action : session.TakeActions(now, rate_of)) {
      if (const auto* read = std::get_if<ReadHere>(&action)) {
        here.items.push_back(read->wanted.chunk);
        reads.push_back(*read);
      } else if (const auto* fetch = std::get_if<FetchFrom>(&action)) {
        Ask ask{fetch->peer, {}};
        for (const ChunkWanted& wanted : fetch->wanted) {
          ask.items.push_back(wanted.chunk);
        }
        asks.push_back(std::move(ask));
        fetches.push_back(*fetch);
      } else if (const auto* stop = std::get_if<StopFetch>(&action)) {
        stopped.push_back(stop->fetch);
      } else if (const auto* window = std::get_if<AskWindow>(&action)) {
        EXPECT_EQ(window_wanted, 0u) << "asked for once";
        window_wanted = window->bytes;
      } else if (std::holds_alternative<WithdrawWindow>(action)) {
        ++windows_withdrawn;
      } else if (const auto* suspect = std::get_if<TellSuspect>(&action)) {
        suspects.push_back(*suspect);
      } else if (const auto* discard = std::get_if<DiscardHere>(&action)) {
        discards.push_back(*discard);
      } else if (const auto* answer = std::get_if<AnswerRetrieve>(&action)) {
        EXPECT_FALSE(answered) << "answered once";
        answered = true;
        outcomes = answer->outcomes;
      }
    }
    if (!here.items.empty()) asks.push_back(std::move(here));
    session.CheckInvariants();
    return asks;
  }
  void OnAttempt(int chunk, const NodeId& node, const AttemptResult& result) {
    session.OnAttempt(chunk, node, result);
    session.CheckInvariants();
  }
  // True when the session has answered. Call it after the last event.
  bool Over() {
    EXPECT_TRUE(TakeAsks().empty());
    return answered;
  }

  FetchSession session;
  absl::Time now = kNow;
  std::optional<double> rate;
  std::vector<ReadHere> reads;
  std::vector<FetchFrom> fetches;
  std::vector<int> stopped;
  std::vector<TellSuspect> suspects;
  std::vector<DiscardHere> discards;
  uint64_t window_wanted = 0;
  int windows_withdrawn = 0;
  bool answered = false;
  std::vector<ChunkOutcome> outcomes;
};

TEST(FetchSessionTest, AHitNamesItsSourceAndLevel) {
  Driven driven(Orders{{kSelf, kPeer}}, 100, 1000);
  driven.session.OpenWindow();
  ASSERT_EQ(driven.TakeAsks().size(), 1u);
  driven.OnAttempt(0, kSelf, Ok());
  ASSERT_TRUE(driven.Over());
  const ChunkOutcome outcome = driven.outcomes[0];
  EXPECT_EQ(outcome.kind, OutcomeKind::kHit);
  EXPECT_EQ(outcome.source, kSelf);
}

TEST(FetchSessionTest, ASmallChunkLeavesTheRestOfItsRoomToOthers) {
  Driven driven(Orders(5, {kPeer}), 100, 200);
  driven.session.OpenWindow();
  EXPECT_EQ(driven.TakeAsks()[0].items, (std::vector<int>{0, 1}));
  driven.session.OnSize(0, 30);
  EXPECT_TRUE(driven.TakeAsks().empty()) << "70 bytes are free";
  driven.session.OnSize(1, 30);
  EXPECT_EQ(driven.TakeAsks()[0].items, (std::vector<int>{2}));
  driven.OnAttempt(0, kPeer, Ok());
  driven.OnAttempt(1, kPeer, Ok());
  EXPECT_EQ(driven.TakeAsks()[0].items, (std::vector<int>{3}));
  driven.session.OnSize(2, 500);
  EXPECT_TRUE(driven.TakeAsks().empty())
      << "a chunk never takes more than its room";
  for (int i = 2; i < 4; ++i) driven.OnAttempt(i, kPeer, Ok());
  ASSERT_EQ(driven.TakeAsks()[0].items, (std::vector<int>{4}));
  driven.OnAttempt(4, kPeer, Ok());
  EXPECT_TRUE(driven.Over());
}

TEST(FetchSessionTest, AMissEverywhereIsAMiss) {
  Driven driven(Orders{{kSelf, kPeer}}, 100, 1000);
  driven.session.OpenWindow();
  driven.TakeAsks();
  driven.OnAttempt(0, kSelf, Fails(absl::NotFoundError("")));
  ASSERT_EQ(driven.TakeAsks()[0].node, kPeer);
  driven.OnAttempt(0, kPeer, Fails(absl::NotFoundError("")));
  ASSERT_TRUE(driven.Over());
  EXPECT_EQ(driven.outcomes[0].kind, OutcomeKind::kMiss);
}

TEST(FetchSessionTest, ADeadReplicaIsReplacedByTheNext) {
  Driven driven(Orders{{kPeer, kOther}}, 100, 1000);
  driven.session.OpenWindow();
  driven.TakeAsks();
  driven.OnAttempt(0, kPeer, Fails(absl::UnavailableError("died")));
  ASSERT_EQ(driven.TakeAsks()[0].node, kOther);
  driven.OnAttempt(0, kOther, Ok());
  ASSERT_TRUE(driven.Over());
  EXPECT_EQ(driven.outcomes[0].kind, OutcomeKind::kHit);
  EXPECT_EQ(driven.outcomes[0].source, kOther);
}

TEST(FetchSessionTest, AnnouncedLayersPinTheVersion) {
  Driven driven(Orders{{kPeer, kOther}}, 100, 1000);
  driven.session.OpenWindow();
  driven.TakeAsks();
  EXPECT_FALSE(driven.fetches[0].wanted[0].pinned.has_value());
  AttemptResult half = Ok(7);
  half.status = absl::UnavailableError("died in the middle");
  driven.OnAttempt(0, kPeer, half);
  driven.TakeAsks();
  EXPECT_EQ(driven.fetches[1].wanted[0].pinned, ObjectVersion(7));
}

TEST(FetchSessionTest, WithoutAWindowOnlyChunksOfThisNodeAreDelivered) {
  Driven driven(Orders{{kSelf, kPeer}, {kPeer, kSelf}, {kPeer, kOther}}, 100,
                1000);
  const std::vector<Ask> here = driven.TakeAsks();
  ASSERT_EQ(here.size(), 1u);
  EXPECT_EQ(here[0].items, std::vector<int>{0});
  driven.session.RefuseWindow(absl::ResourceExhaustedError("full"));
  const std::vector<Ask> instead = driven.TakeAsks();
  ASSERT_EQ(instead.size(), 1u);
  EXPECT_EQ(instead[0].node, kSelf);
  EXPECT_EQ(instead[0].items, std::vector<int>{1});
  driven.OnAttempt(0, kSelf, Fails(absl::NotFoundError("")));
  EXPECT_TRUE(driven.TakeAsks().empty())
      << "no peer is asked after the refusal";
  driven.OnAttempt(1, kSelf, Ok());
  ASSERT_TRUE(driven.Over());
  const std::vector<ChunkOutcome> outcomes = driven.outcomes;
  EXPECT_EQ(outcomes[1].kind, OutcomeKind::kHit);
  for (const int failed : {0, 2}) {
    EXPECT_EQ(outcomes[failed].kind, OutcomeKind::kFailed);
    EXPECT_TRUE(absl::IsResourceExhausted(outcomes[failed].why));
  }
}

TEST(FetchSessionTest, AtTheDeadlineTheSessionWaitsForTriesThatStillWrite) {
  Driven driven(Orders{{kPeer}, {kSelf}}, 100, 1000);
  driven.session.OpenWindow();
  driven.TakeAsks();
  driven.OnAttempt(1, kSelf, Ok());
  driven.session.OnDeadline();
  EXPECT_FALSE(driven.session.done()) << "the peer's try may still write";
  driven.OnAttempt(0, kPeer, Ok());
  ASSERT_TRUE(driven.Over());
  EXPECT_EQ(driven.outcomes[0].kind, OutcomeKind::kFailed);
  EXPECT_TRUE(absl::IsDeadlineExceeded(driven.outcomes[0].why));
  EXPECT_EQ(driven.outcomes[1].kind, OutcomeKind::kHit);
}

TEST(FetchSessionTest, ChunksThatAreHeldBackEndAtTheDeadline) {
  Driven driven(Orders{{kPeer}, {kPeer}, {kPeer}}, 100, 100);
  driven.session.OpenWindow();
  ASSERT_EQ(driven.TakeAsks()[0].items.size(), 1u)
      << "the window holds one chunk";
  driven.session.OnDeadline();
  driven.OnAttempt(0, kPeer, Ok());
  ASSERT_TRUE(driven.Over());
  for (const ChunkOutcome& outcome : driven.outcomes) {
    EXPECT_EQ(outcome.kind, OutcomeKind::kFailed);
  }
}

TEST(FetchSessionTest, NoPeerIsAskedBeforeTheWindowIsGranted) {
  Driven driven(Orders{{kPeer}, {kSelf}, {kPeer}}, 100, 1000);
  const std::vector<Ask> asks = driven.TakeAsks();
  ASSERT_EQ(asks.size(), 1u);
  EXPECT_EQ(asks[0].node, kSelf) << "a read of this node needs no window";
  EXPECT_EQ(driven.window_wanted, 300u)
      << "the room of three chunks, and no more";
  driven.session.OpenWindow();
  EXPECT_EQ(driven.TakeAsks()[0].items.size(), 2u);
}

TEST(FetchSessionTest, ReadsAtATimeAreLimited) {
  constexpr int kMost = FetchSession::kReadsHereMax;
  constexpr int kChunks = 3 * kMost;
  Driven driven(Orders(kChunks, {kSelf}), 100, 1000);
  std::deque<int> open;
  for (int ended = 0; ended < 2 * kMost; ++ended) {
    for (const Ask& ask : driven.TakeAsks()) {
      open.insert(open.end(), ask.items.begin(), ask.items.end());
    }
    ASSERT_EQ(std::ssize(open), kMost);
    driven.OnAttempt(open.front(), kSelf, Ok());
    open.pop_front();
  }
  driven.session.OnDeadline();
  EXPECT_TRUE(driven.TakeAsks().empty());
  for (const int chunk : open) driven.OnAttempt(chunk, kSelf, Ok());
  ASSERT_TRUE(driven.Over());
  const std::vector<ChunkOutcome> outcomes = driven.outcomes;
  EXPECT_EQ(std::count_if(outcomes.begin(), outcomes.end(),
                          [](const ChunkOutcome& outcome) {
                            return outcome.kind == OutcomeKind::kHit;
                          }),
            2 * kMost);
}

TEST(FetchSessionTest, AChunkThatOnlyWaitsForMemoryEndsAtTheDeadline) {
  Driven driven(Orders{{kPeer}}, 100, 1000);
  EXPECT_TRUE(driven.TakeAsks().empty());
  driven.session.OnDeadline();
  ASSERT_TRUE(driven.Over());
  EXPECT_EQ(driven.outcomes[0].kind, OutcomeKind::kFailed);
}

TEST(FetchSessionTest, ATryMayTakeHalfOfTheTimeThatIsLeft) {
  Driven driven(Orders{{kPeer, kOther}, {kSelf}}, 100, 1000);
  driven.session.OpenWindow();
  driven.TakeAsks();
  EXPECT_EQ(driven.fetches[0].target.deadline, kNow + absl::Seconds(1));
  EXPECT_EQ(driven.reads[0].deadline, kNow + absl::Seconds(1));
  driven.now += absl::Seconds(1);
  driven.OnAttempt(0, kPeer, Fails(absl::DeadlineExceededError("late")));
  driven.TakeAsks();
  EXPECT_EQ(driven.fetches[1].target.deadline, kNow + absl::Milliseconds(1500));
}

TEST(FetchSessionTest, ATryAfterTheDeadlineGetsNoTimeAtAll) {
  Driven driven(Orders{{kSelf}}, 100, 1000);
  driven.now = kNow + absl::Seconds(5);
  driven.TakeAsks();
  EXPECT_EQ(driven.reads[0].deadline, driven.now);
}

TEST(FetchSessionTest, TheDeadlineIsAwaitedFromTheBeginning) {
  FetchSession session(TaskOf({{kPeer}}, 100, 1000));
  const auto unknown = [](const NodeId&) { return std::nullopt; };
  const std::vector<FetchAction> actions = session.TakeActions(kNow, unknown);
  ASSERT_EQ(actions.size(), 2u);
  EXPECT_EQ(std::get<AwaitDeadline>(actions[0]).at, kNow + absl::Seconds(2));
  EXPECT_EQ(std::get<AskWindow>(actions[1]).deadline, kNow + absl::Seconds(2));
}

TEST(FetchSessionTest, NoWindowIsLargerThanTheLimit) {
  constexpr uint64_t kMiB = 1u << 20;
  Driven driven(Orders(200, {kPeer}), kMiB, 1024 * kMiB);
  driven.TakeAsks();
  EXPECT_EQ(driven.window_wanted, FetchSession::kWindowBytesMax);
  driven.session.OpenWindow();
  EXPECT_EQ(driven.TakeAsks()[0].items.size(), 64u);
}

TEST(FetchSessionTest, AnAskIsCutIntoFetchesThatAPeerTakes) {
  constexpr int kMost = kItemsPerFetchMax;
  Driven driven(Orders(2 * kMost + 1, {kPeer}), 1, 1 << 20);
  driven.session.OpenWindow();
  driven.TakeAsks();
  ASSERT_EQ(driven.fetches.size(), 3u);
  EXPECT_EQ(driven.fetches[0].wanted.size(), static_cast<size_t>(kMost));
  EXPECT_EQ(driven.fetches[1].wanted.size(), static_cast<size_t>(kMost));
  EXPECT_EQ(driven.fetches[2].wanted.size(), 1u);
  EXPECT_EQ(driven.fetches[1].wanted[0].chunk, kMost);
}

TEST(FetchSessionTest, AFetchGetsItsShareOfTheBytesThatTheLinkCarriesInTime) {
  // At first there is room for two of the four chunks. Other sessions fetch
  // four more chunks.
  FetchTask task = TaskOf(Orders(4, {kPeer}), 100, 200);
  task.chunks_beside = 4;
  Driven driven(std::move(task));
  driven.rate = 10e6;
  driven.session.OpenWindow();
  driven.TakeAsks();
  // Half of the two seconds, and kRateSafety of the link's rate.
  EXPECT_EQ(driven.fetches[0].budget.bytes_max, 8'000'000u * 2 / 8);
}

TEST(FetchSessionTest, NothingLimitsAFetchWhileTheLinkIsUnknown) {
  Driven driven(Orders(4, {kPeer}), 100, 1000);
  driven.session.OpenWindow();
  driven.TakeAsks();
  EXPECT_TRUE(driven.fetches[0].budget.unlimited());
}

TEST(FetchSessionTest, TheHolderOfADamagedCopyIsTold) {
  Driven driven(Orders{{kPeer, kSelf, kOther}}, 100, 1000);
  driven.session.OpenWindow();
  driven.TakeAsks();
  AttemptResult damaged = Fails(absl::DataLossError("a checksum fails"));
  damaged.version = ObjectVersion(7);
  driven.OnAttempt(0, kPeer, damaged);
  driven.TakeAsks();
  ASSERT_EQ(driven.suspects.size(), 1u);
  EXPECT_EQ(driven.suspects[0].peer, kPeer);
  EXPECT_EQ(driven.suspects[0].version, ObjectVersion(7));
  driven.OnAttempt(0, kSelf, damaged);
  driven.TakeAsks();
  ASSERT_EQ(driven.discards.size(), 1u);
  EXPECT_EQ(driven.discards[0].version, ObjectVersion(7));
  driven.OnAttempt(0, kOther, Fails(absl::DataLossError("nonsense")));
  ASSERT_TRUE(driven.Over());
  EXPECT_EQ(driven.suspects.size(), 1u)
      << "no copy came, so no copy is suspect";
}

TEST(FetchSessionTest, ACancelledRetrieveAsksNoOtherNode) {
  Driven driven(Orders{{kPeer, kOther}}, 100, 1000);
  driven.session.OpenWindow();
  driven.TakeAsks();
  driven.OnAttempt(0, kPeer, Fails(absl::UnavailableError("died")));
  driven.session.OnCancelled();
  driven.session.OnCancelled();
  ASSERT_TRUE(driven.Over());
  EXPECT_TRUE(absl::IsCancelled(driven.outcomes[0].why));
}

TEST(FetchSessionTest, AWindowThatNobodyWantsIsWithdrawn) {
  Driven driven(Orders{{kSelf}, {kPeer}}, 100, 1000);
  driven.TakeAsks();
  EXPECT_EQ(driven.window_wanted, 200u);
  driven.session.OnCancelled();
  EXPECT_TRUE(driven.TakeAsks().empty());
  EXPECT_EQ(driven.windows_withdrawn, 1) << "while a read is still under way";
  EXPECT_FALSE(driven.answered);
  driven.session.OpenWindow();  // the grant was on its way
  driven.OnAttempt(0, kSelf, Ok());
  ASSERT_TRUE(driven.Over());
  EXPECT_EQ(driven.windows_withdrawn, 1);
}

TEST(FetchSessionTest, AWindowThatWasAnsweredIsNotWithdrawn) {
  for (const bool opened : {true, false}) {
    Driven driven(Orders{{kPeer}}, 100, 1000);
    driven.TakeAsks();
    if (opened) {
      driven.session.OpenWindow();
      driven.TakeAsks();
      driven.session.OnCancelled();
      driven.OnAttempt(0, kPeer, Ok());
    } else {
      driven.session.RefuseWindow(absl::ResourceExhaustedError("full"));
    }
    ASSERT_TRUE(driven.Over());
    EXPECT_EQ(driven.windows_withdrawn, 0);
  }
}

TEST(FetchSessionTest, FetchesThatNobodyWantsAreStoppedOnce) {
  Driven driven(Orders{{kPeer}, {kPeer}, {kOther}, {kOther}}, 100, 1000);
  driven.session.OpenWindow();
  driven.TakeAsks();
  ASSERT_EQ(driven.fetches.size(), 2u);
  driven.OnAttempt(2, kOther, Ok());
  driven.OnAttempt(3, kOther, Ok());
  driven.TakeAsks();
  EXPECT_TRUE(driven.stopped.empty());
  driven.session.OnCancelled();
  driven.TakeAsks();
  EXPECT_EQ(driven.stopped, std::vector<int>{driven.fetches[0].fetch})
      << "the other fetch has ended";
  driven.session.OnDeadline();
  driven.TakeAsks();
  EXPECT_EQ(driven.stopped.size(), 1u);
  EXPECT_FALSE(driven.answered) << "the fetch still has to end";
  driven.OnAttempt(0, kPeer, Fails(absl::CancelledError("stopped")));
  driven.OnAttempt(1, kPeer, Ok());
  ASSERT_TRUE(driven.Over());
  EXPECT_EQ(driven.outcomes[1].kind, OutcomeKind::kFailed)
      << "the chunk was settled before";
}

// Orders and failures are random, and tries end in any order. Every chunk gets
// an outcome, the window is never exceeded, and every chunk that a node
// delivered is a hit.
TEST(FetchSessionTest, SettlesEveryChunkUnderRandomFailures) {
  for (uint32_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    std::vector<std::vector<NodeId>> orders(random() % 30 + 1);
    for (auto& order : orders) {
      order = {kSelf, kPeer, kOther};
      std::shuffle(order.begin(), order.end(), random);
    }
    const uint64_t window = 100 * (random() % 5 + 1);
    Driven driven(orders, 100, window);
    struct Try {
      int chunk;
      NodeId node;
    };
    std::deque<Try> open;
    std::vector<bool> delivered(orders.size());
    bool asked = false;
    for (;;) {
      for (const Ask& ask : driven.TakeAsks()) {
        for (int chunk : ask.items) open.push_back({chunk, ask.node});
      }
      const auto remote =
          std::count_if(open.begin(), open.end(),
                        [](const Try& t) { return t.node != kSelf; });
      EXPECT_LE(remote * 100,
                static_cast<int64_t>(asked ? window : uint64_t{0}));
      if (driven.answered) break;
      if (driven.window_wanted > 0 && !asked &&
          (open.empty() || random() % 3 == 0)) {
        EXPECT_LE(driven.window_wanted, window);
        driven.session.OpenWindow();
        asked = true;
        continue;
      }
      ASSERT_FALSE(open.empty())
          << "the session is not done and waits for nothing";
      std::swap(open[random() % open.size()], open.back());
      const Try ended = open.back();
      open.pop_back();
      switch (random() % 3) {
        case 0:
          driven.OnAttempt(ended.chunk, ended.node, Ok());
          delivered[ended.chunk] = true;
          break;
        case 1:
          driven.OnAttempt(ended.chunk, ended.node,
                           Fails(absl::NotFoundError("")));
          break;
        default:
          driven.OnAttempt(ended.chunk, ended.node,
                           Fails(absl::DataLossError("")));
      }
    }
    EXPECT_TRUE(open.empty());
    const std::vector<ChunkOutcome> outcomes = driven.outcomes;
    for (size_t i = 0; i < outcomes.size(); ++i) {
      EXPECT_EQ(outcomes[i].kind == OutcomeKind::kHit, delivered[i]);
    }
  }
}

}  // namespace
}  // namespace kdn::delivery
