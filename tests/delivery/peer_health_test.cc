#include "delivery/peer_health.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace kdn::delivery {
namespace {

const absl::Time kNow = absl::UnixEpoch() + absl::Hours(1);

class PeerHealthTest : public testing::Test {
 protected:
  // A fetch that has a connection at once.
  void Begin() {
    health_.OnAsk(now_);
    health_.OnBegin(now_);
  }
  // A fetch from beginning to end.
  void Answered(absl::Duration latency) {
    const absl::Time began = now_;
    Begin();
    now_ += latency;
    health_.OnAnswer(began, now_);
    health_.OnEnd(FetchEnd::kDone, true, began, now_);
    health_.CheckInvariants();
  }
  void Unanswered(FetchEnd end, absl::Duration took) {
    const absl::Time began = now_;
    Begin();
    now_ += took;
    health_.OnEnd(end, false, began, now_);
    health_.CheckInvariants();
  }
  bool IsFailing() const { return health_.IsFailing(now_); }

  PeerHealth health_;
  absl::Time now_ = kNow;
};

TEST_F(PeerHealthTest, NothingIsKnownAtFirst) {
  EXPECT_FALSE(IsFailing());
  EXPECT_FALSE(health_.LatencyAt(now_).has_value());
  EXPECT_EQ(health_.waiting(), 0);
}

TEST_F(PeerHealthTest, APeerFailsForAWhileAfterATimeout) {
  Unanswered(FetchEnd::kLate, absl::Seconds(2));
  EXPECT_TRUE(IsFailing());
  now_ += PeerHealth::kBackoff;
  EXPECT_FALSE(IsFailing()) << "the peer is tried again";
}

TEST_F(PeerHealthTest, APeerFailsAtOnceAfterABrokenConnection) {
  Unanswered(FetchEnd::kBroken, absl::ZeroDuration());
  EXPECT_TRUE(IsFailing());
}

TEST_F(PeerHealthTest, UnclearEvidenceDoesNotCount) {
  Unanswered(FetchEnd::kLate, PeerHealth::kPatience / 2);
  EXPECT_FALSE(IsFailing()) << "the fetch had too little time";
  Unanswered(FetchEnd::kWithdrawn, absl::Seconds(5));
  EXPECT_FALSE(IsFailing()) << "nobody waited for the answer";
  const absl::Time began = now_;
  Begin();
  health_.OnAnswer(began, now_);
  now_ += absl::Seconds(5);
  health_.OnEnd(FetchEnd::kLate, true, began, now_);
  EXPECT_FALSE(IsFailing()) << "the link is slow, the peer is not";
}

TEST_F(PeerHealthTest, OneFetchTriesThePeerAgainAndTheOthersWait) {
  Unanswered(FetchEnd::kLate, absl::Seconds(2));
  now_ += PeerHealth::kBackoff;
  EXPECT_FALSE(IsFailing());
  const absl::Time began = now_;
  Begin();
  EXPECT_TRUE(IsFailing()) << "the others wait for that fetch";
  now_ += absl::Milliseconds(2);
  health_.OnAnswer(began, now_);
  EXPECT_FALSE(IsFailing()) << "one answer is enough";
}

TEST_F(PeerHealthTest, EachFailureInARowLastsLongerUpToALimit) {
  absl::Duration expected = PeerHealth::kBackoff;
  for (int i = 0; i < 12; ++i) {
    Unanswered(FetchEnd::kLate, absl::Milliseconds(300));
    EXPECT_TRUE(health_.IsFailing(now_ + expected - absl::Milliseconds(1)));
    EXPECT_FALSE(health_.IsFailing(now_ + expected));
    now_ += expected;
    expected = std::min(2 * expected, PeerHealth::kBackoffMax);
  }
  now_ += PeerHealth::kForgotten + absl::Seconds(1);
  Unanswered(FetchEnd::kLate, absl::Milliseconds(300));
  EXPECT_FALSE(health_.IsFailing(now_ + PeerHealth::kBackoff));
}

TEST_F(PeerHealthTest, FetchesThatFailTogetherAreOneFailure) {
  for (int i = 0; i < 50; ++i) Begin();
  const absl::Time began = now_;
  now_ += absl::Milliseconds(10);
  for (int i = 0; i < 50; ++i) {
    health_.OnEnd(FetchEnd::kBroken, false, began, now_);
  }
  EXPECT_TRUE(IsFailing());
  EXPECT_FALSE(health_.IsFailing(now_ + PeerHealth::kBackoff));
}

TEST_F(PeerHealthTest, AHungPeerIsNoticedBeforeItsFetchesEnd) {
  Begin();
  EXPECT_EQ(health_.waiting(), 1);
  EXPECT_FALSE(health_.IsFailing(now_ + PeerHealth::kSilence / 2));
  EXPECT_TRUE(health_.IsFailing(now_ + PeerHealth::kSilence));
}

TEST_F(PeerHealthTest, APeerThatAnswersOthersIsNotHung) {
  Begin();
  now_ += PeerHealth::kSilence / 2;
  Answered(absl::Milliseconds(1));
  now_ += PeerHealth::kSilence * 0.9;
  EXPECT_FALSE(IsFailing());
  now_ += PeerHealth::kSilence * 0.2;
  EXPECT_TRUE(IsFailing());
}

TEST_F(PeerHealthTest, APeerThatStillSendsIsNotHung) {
  const absl::Time began = now_;
  Begin();
  health_.OnAnswer(began, now_);
  Begin();
  for (int i = 0; i < 5; ++i) {
    now_ += PeerHealth::kSilence * 0.9;
    EXPECT_FALSE(IsFailing());
    health_.OnProgress(now_);
  }
  EXPECT_FALSE(IsFailing()) << "its answer to the first fetch goes on";
  EXPECT_TRUE(health_.IsFailing(now_ + PeerHealth::kSilence));
  health_.OnProgress(now_ - absl::Seconds(1));
  EXPECT_FALSE(IsFailing()) << "an event that comes late changes nothing";
}

TEST_F(PeerHealthTest, AHungPeerIsTriedAgainThoughItsFetchesGoOn) {
  Begin();
  now_ += PeerHealth::kSilence + PeerHealth::kBackoffMax;
  EXPECT_FALSE(IsFailing());
  Begin();
  EXPECT_TRUE(IsFailing()) << "one fetch tries the peer again";
  now_ += PeerHealth::kBackoffMax;
  EXPECT_FALSE(IsFailing());
}

TEST_F(PeerHealthTest, AFetchThatWaitsForAConnectionTriesThePeerAgainToo) {
  Unanswered(FetchEnd::kLate, absl::Seconds(2));
  now_ += PeerHealth::kBackoff;
  EXPECT_FALSE(IsFailing());
  health_.OnAsk(now_);
  EXPECT_TRUE(IsFailing());
  EXPECT_EQ(health_.waiting(), 0);
  now_ += PeerHealth::kBackoff;
  EXPECT_FALSE(IsFailing()) << "the next fetch tries again";
}

TEST_F(PeerHealthTest, LatencyTakesAFewAnswersAndIsForgotten) {
  Answered(absl::Milliseconds(20));
  Answered(absl::Milliseconds(20));
  EXPECT_FALSE(health_.LatencyAt(now_).has_value());
  Answered(absl::Milliseconds(20));
  ASSERT_TRUE(health_.LatencyAt(now_).has_value());
  EXPECT_NEAR(absl::ToDoubleMilliseconds(*health_.LatencyAt(now_)), 20, 1e-6);
  for (int i = 0; i < 10; ++i) Answered(absl::Milliseconds(80));
  EXPECT_NEAR(absl::ToDoubleMilliseconds(*health_.LatencyAt(now_)), 80, 5);
  now_ += PeerHealth::kLatencyFresh + absl::Seconds(1);
  EXPECT_FALSE(health_.LatencyAt(now_).has_value());
  Answered(absl::Milliseconds(1));
  EXPECT_FALSE(health_.LatencyAt(now_).has_value())
      << "the latency is learnt anew";
}

// After any events, a peer that nobody asks is tried again within a bounded
// time, and a peer that answers is not failing.
TEST_F(PeerHealthTest, NoPeerIsGivenUpForGood) {
  for (uint32_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    health_ = PeerHealth();
    struct Open {
      absl::Time began;
      bool answered;
    };
    std::vector<Open> open;
    for (int step = 0; step < 200; ++step) {
      now_ += absl::Milliseconds(static_cast<int>(random() % 700));
      if (open.empty() || random() % 2 == 0) {
        Begin();
        open.push_back({now_, false});
        continue;
      }
      std::swap(open[random() % open.size()], open.back());
      if (!open.back().answered && random() % 3 == 0) {
        health_.OnAnswer(open.back().began, now_);
        open.back().answered = true;
        EXPECT_FALSE(IsFailing());
        continue;
      }
      if (open.back().answered && random() % 2 == 0) {
        health_.OnProgress(now_);
        continue;
      }
      health_.OnEnd(static_cast<FetchEnd>(random() % 4), open.back().answered,
                    open.back().began, now_);
      open.pop_back();
      health_.CheckInvariants();
      EXPECT_EQ(health_.waiting(),
                std::count_if(open.begin(), open.end(),
                              [](const Open& o) { return !o.answered; }));
    }
    EXPECT_FALSE(health_.IsFailing(now_ + PeerHealth::kSilence +
                                   PeerHealth::kBackoffMax));
    for (const Open& o : open) {
      health_.OnEnd(FetchEnd::kWithdrawn, o.answered, o.began, now_);
    }
    Answered(absl::Milliseconds(1));
    EXPECT_FALSE(IsFailing());
  }
}

}  // namespace
}  // namespace kdn::delivery
