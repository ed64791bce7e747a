#include "delivery/fetch_session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>

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

TEST(FetchSessionTest, AHitNamesItsSourceAndLevel) {
  FetchSession session(kSelf, Orders{{kSelf, kPeer}}, 100, 1000);
  session.OpenWindow();
  ASSERT_EQ(session.TakeAsks().size(), 1u);
  session.OnAttempt(0, kSelf, Ok());
  ASSERT_TRUE(session.done());
  const ChunkOutcome outcome = session.Outcomes()[0];
  EXPECT_EQ(outcome.kind, OutcomeKind::kHit);
  EXPECT_EQ(outcome.source, kSelf);
}

TEST(FetchSessionTest, WhatIsSmallerThanItsRoomLeavesItToOthers) {
  FetchSession session(kSelf, Orders(5, {kPeer}), 100, 200);
  session.OpenWindow();
  EXPECT_EQ(session.TakeAsks()[0].items, (std::vector<int>{0, 1}));
  EXPECT_EQ(session.held_back(), 3);
  session.OnSize(0, 30);
  EXPECT_TRUE(session.TakeAsks().empty()) << "70 bytes are free";
  session.OnSize(1, 30);
  EXPECT_EQ(session.TakeAsks()[0].items, (std::vector<int>{2}));
  session.OnAttempt(0, kPeer, Ok());
  session.OnAttempt(1, kPeer, Ok());
  EXPECT_EQ(session.TakeAsks()[0].items, (std::vector<int>{3}));
  session.OnSize(2, 500);
  EXPECT_TRUE(session.TakeAsks().empty()) << "more than its room is not taken";
  for (int i = 2; i < 4; ++i) session.OnAttempt(i, kPeer, Ok());
  ASSERT_EQ(session.TakeAsks()[0].items, (std::vector<int>{4}));
  session.OnAttempt(4, kPeer, Ok());
  EXPECT_TRUE(session.done());
}

TEST(FetchSessionTest, AMissEverywhereIsAMiss) {
  FetchSession session(kSelf, Orders{{kSelf, kPeer}}, 100, 1000);
  session.OpenWindow();
  session.TakeAsks();
  session.OnAttempt(0, kSelf, Fails(absl::NotFoundError("")));
  ASSERT_EQ(session.TakeAsks()[0].node, kPeer);
  session.OnAttempt(0, kPeer, Fails(absl::NotFoundError("")));
  ASSERT_TRUE(session.done());
  EXPECT_EQ(session.Outcomes()[0].kind, OutcomeKind::kMiss);
}

TEST(FetchSessionTest, ADeadReplicaIsReplacedByTheNext) {
  FetchSession session(kSelf, Orders{{kPeer, kOther}}, 100, 1000);
  session.OpenWindow();
  session.TakeAsks();
  session.OnAttempt(0, kPeer, Fails(absl::UnavailableError("died")));
  ASSERT_EQ(session.TakeAsks()[0].node, kOther);
  session.OnAttempt(0, kOther, Ok());
  EXPECT_EQ(session.Outcomes()[0].kind, OutcomeKind::kHit);
  EXPECT_EQ(session.Outcomes()[0].source, kOther);
}

TEST(FetchSessionTest, AnnouncedLayersPinTheVersion) {
  FetchSession session(kSelf, Orders{{kPeer, kOther}}, 100, 1000);
  session.OpenWindow();
  session.TakeAsks();
  EXPECT_FALSE(session.pinned_version(0).has_value());
  AttemptResult half = Ok(7);
  half.status = absl::UnavailableError("died in the middle");
  session.OnAttempt(0, kPeer, half);
  session.TakeAsks();
  EXPECT_EQ(session.pinned_version(0), ObjectVersion(7));
}

TEST(FetchSessionTest, WithoutAWindowOnlyWhatIsHereIsDelivered) {
  FetchSession session(kSelf,
                       Orders{{kSelf, kPeer}, {kPeer, kSelf}, {kPeer, kOther}},
                       100, 1000);
  const std::vector<Ask> here = session.TakeAsks();
  ASSERT_EQ(here.size(), 1u);
  EXPECT_EQ(here[0].items, std::vector<int>{0});
  session.RefuseWindow(absl::ResourceExhaustedError("full"));
  const std::vector<Ask> instead = session.TakeAsks();
  ASSERT_EQ(instead.size(), 1u);
  EXPECT_EQ(instead[0].node, kSelf);
  EXPECT_EQ(instead[0].items, std::vector<int>{1});
  EXPECT_EQ(session.WindowWanted(), 0u);
  session.OnAttempt(0, kSelf, Fails(absl::NotFoundError("")));
  EXPECT_TRUE(session.TakeAsks().empty()) << "no peer is asked later either";
  session.OnAttempt(1, kSelf, Ok());
  ASSERT_TRUE(session.done());
  const std::vector<ChunkOutcome> outcomes = session.Outcomes();
  EXPECT_EQ(outcomes[1].kind, OutcomeKind::kHit);
  for (const int failed : {0, 2}) {
    EXPECT_EQ(outcomes[failed].kind, OutcomeKind::kFailed);
    EXPECT_TRUE(absl::IsResourceExhausted(outcomes[failed].why));
  }
}

TEST(FetchSessionTest, AtTheDeadlineItWaitsForTriesThatStillWrite) {
  FetchSession session(kSelf, Orders{{kPeer}, {kSelf}}, 100, 1000);
  session.OpenWindow();
  session.TakeAsks();
  session.OnAttempt(1, kSelf, Ok());
  session.Abandon(absl::DeadlineExceededError("late"));
  EXPECT_FALSE(session.done()) << "the peer's try may still write";
  session.OnAttempt(0, kPeer, Ok());
  ASSERT_TRUE(session.done());
  EXPECT_EQ(session.Outcomes()[0].kind, OutcomeKind::kFailed);
  EXPECT_TRUE(absl::IsDeadlineExceeded(session.Outcomes()[0].why));
  EXPECT_EQ(session.Outcomes()[1].kind, OutcomeKind::kHit);
}

TEST(FetchSessionTest, ChunksHeldBackEndWithTheDeadline) {
  FetchSession session(kSelf, Orders{{kPeer}, {kPeer}, {kPeer}}, 100, 100);
  session.OpenWindow();
  ASSERT_EQ(session.TakeAsks()[0].items.size(), 1u)
      << "the window is one chunk";
  session.Abandon(absl::DeadlineExceededError("late"));
  session.OnAttempt(0, kPeer, Ok());
  ASSERT_TRUE(session.done());
  for (const ChunkOutcome& outcome : session.Outcomes()) {
    EXPECT_EQ(outcome.kind, OutcomeKind::kFailed);
  }
}

TEST(FetchSessionTest, NoPeerIsAskedBeforeTheMemoryIsThere) {
  FetchSession session(kSelf, Orders{{kPeer}, {kSelf}, {kPeer}}, 100, 1000);
  const std::vector<Ask> asks = session.TakeAsks();
  ASSERT_EQ(asks.size(), 1u);
  EXPECT_EQ(asks[0].node, kSelf) << "what is here needs no window";
  EXPECT_EQ(session.WindowWanted(), 300u) << "never more than all its chunks";
  session.OpenWindow();
  EXPECT_EQ(session.WindowWanted(), 0u);
  EXPECT_EQ(session.TakeAsks()[0].items.size(), 2u);
}

TEST(FetchSessionTest, ReadsOnlySoManyOfItsOwnChunksAtATime) {
  constexpr int kMost = FetchSession::kReadsHereMax;
  constexpr int kChunks = 3 * kMost;
  FetchSession session(kSelf, Orders(kChunks, {kSelf}), 100, 1000);
  std::deque<int> open;
  for (int ended = 0; ended < 2 * kMost; ++ended) {
    for (const Ask& ask : session.TakeAsks()) {
      open.insert(open.end(), ask.items.begin(), ask.items.end());
    }
    ASSERT_EQ(std::ssize(open), kMost);
    session.OnAttempt(open.front(), kSelf, Ok());
    open.pop_front();
  }
  session.Abandon(absl::DeadlineExceededError("late"));
  EXPECT_TRUE(session.TakeAsks().empty());
  for (const int chunk : open) session.OnAttempt(chunk, kSelf, Ok());
  ASSERT_TRUE(session.done());
  const std::vector<ChunkOutcome> outcomes = session.Outcomes();
  EXPECT_EQ(std::count_if(outcomes.begin(), outcomes.end(),
                          [](const ChunkOutcome& outcome) {
                            return outcome.kind == OutcomeKind::kHit;
                          }),
            2 * kMost);
}

TEST(FetchSessionTest, WhatOnlyWaitsForMemoryEndsWithTheDeadline) {
  FetchSession session(kSelf, Orders{{kPeer}}, 100, 1000);
  EXPECT_TRUE(session.TakeAsks().empty());
  session.Abandon(absl::DeadlineExceededError("late"));
  EXPECT_EQ(session.WindowWanted(), 0u);
  ASSERT_TRUE(session.done());
  EXPECT_EQ(session.Outcomes()[0].kind, OutcomeKind::kFailed);
}

// Random clusters, random failures, tries ending in any order: every chunk gets
// an outcome, the window is kept, and a chunk some candidate delivers is a hit.
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
    FetchSession session(kSelf, orders, 100, window);
    struct Try {
      int chunk;
      NodeId node;
    };
    std::deque<Try> open;
    std::vector<bool> delivered(orders.size());
    bool asked = false;
    for (;;) {
      for (const Ask& ask : session.TakeAsks()) {
        for (int chunk : ask.items) open.push_back({chunk, ask.node});
      }
      const auto remote =
          std::count_if(open.begin(), open.end(),
                        [](const Try& t) { return t.node != kSelf; });
      EXPECT_LE(remote * 100,
                static_cast<int64_t>(asked ? window : uint64_t{0}));
      if (session.done()) break;
      if (session.WindowWanted() > 0 && (open.empty() || random() % 3 == 0)) {
        EXPECT_LE(session.WindowWanted(), window);
        session.OpenWindow();
        asked = true;
        continue;
      }
      ASSERT_FALSE(open.empty()) << "not done, and nothing to wait for";
      std::swap(open[random() % open.size()], open.back());
      const Try ended = open.back();
      open.pop_back();
      switch (random() % 3) {
        case 0:
          session.OnAttempt(ended.chunk, ended.node, Ok());
          delivered[ended.chunk] = true;
          break;
        case 1:
          session.OnAttempt(ended.chunk, ended.node,
                            Fails(absl::NotFoundError("")));
          break;
        default:
          session.OnAttempt(ended.chunk, ended.node,
                            Fails(absl::DataLossError("")));
      }
    }
    EXPECT_TRUE(open.empty());
    const std::vector<ChunkOutcome> outcomes = session.Outcomes();
    for (size_t i = 0; i < outcomes.size(); ++i) {
      EXPECT_EQ(outcomes[i].kind == OutcomeKind::kHit, delivered[i]);
    }
  }
}

}  // namespace
}  // namespace kdn::delivery
