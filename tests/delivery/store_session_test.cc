#include "delivery/store_session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

namespace kdn::delivery {
namespace {

const NodeId kA("a");
const NodeId kB("b");
const NodeId kC("c");
const ObjectVersion kOurs(1);

PushReceipt Took(uint64_t version = 1, bool existed = false) {
  return PushReceipt{ObjectVersion(version), existed};
}

TEST(StoreSessionTest, TheFirstOwnerDecidesBeforeTheOthersAreSent) {
  StoreSession session(kOurs, {kA, kB, kC}, 2, Durability::kReplicated);
  EXPECT_EQ(session.TakeSends(), std::vector<NodeId>{kA});
  EXPECT_TRUE(session.TakeSends().empty());
  session.OnSent(kA, Took());
  absl::StatusOr<StoreReceipt> answer;
  EXPECT_FALSE(session.TakeAnswer(&answer)) << "one copy is not R = 2";
  EXPECT_EQ(session.TakeSends(), std::vector<NodeId>{kB});
  session.OnSent(kB, Took());
  ASSERT_TRUE(session.TakeAnswer(&answer));
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer->holders, (std::vector<NodeId>{kA, kB}));
  EXPECT_FALSE(answer->existed);
  EXPECT_TRUE(session.done());
}

TEST(StoreSessionTest, CacheIsAnsweredAfterOneCopyAndStillMakesTheOthers) {
  StoreSession session(kOurs, {kA, kB}, 2, Durability::kCache);
  session.TakeSends();
  session.OnSent(kA, Took());
  absl::StatusOr<StoreReceipt> answer;
  EXPECT_TRUE(session.TakeAnswer(&answer));
  EXPECT_EQ(session.TakeSends(), std::vector<NodeId>{kB});
  EXPECT_FALSE(session.done());
  session.OnSent(kB, absl::UnavailableError("died"));
  EXPECT_TRUE(session.done());
}

TEST(StoreSessionTest, TheNextOwnerTakesTheCopyOfADeadOne) {
  StoreSession session(kOurs, {kA, kB, kC}, 2, Durability::kReplicated);
  session.TakeSends();
  session.OnSent(kA, absl::UnavailableError("died"));
  EXPECT_EQ(session.TakeSends(), std::vector<NodeId>{kB});
  session.OnSent(kB, Took());
  EXPECT_EQ(session.TakeSends(), std::vector<NodeId>{kC});
  session.OnSent(kC, Took());
  absl::StatusOr<StoreReceipt> answer;
  ASSERT_TRUE(session.TakeAnswer(&answer));
  EXPECT_EQ(answer->holders, (std::vector<NodeId>{kB, kC}));
}

TEST(StoreSessionTest, ALostRaceSendsOurBytesNowhereElse) {
  StoreSession session(kOurs, {kA, kB}, 2, Durability::kCache);
  session.TakeSends();
  EXPECT_EQ(session.winner(), nullptr);
  session.OnSent(kA, Took(/*version=*/9, /*existed=*/true));
  absl::StatusOr<StoreReceipt> answer;
  ASSERT_TRUE(session.TakeAnswer(&answer));
  EXPECT_TRUE(answer->existed);
  EXPECT_EQ(answer->version, ObjectVersion(9));
  EXPECT_TRUE(session.TakeSends().empty());
  EXPECT_TRUE(session.done());
}

TEST(StoreSessionTest, ALostRaceIsAnsweredOnceTheWinnerHasItsCopies) {
  StoreSession session(kOurs, {kA, kB, kC}, 2, Durability::kDurable);
  session.TakeSends();
  session.OnSent(kA, Took(/*version=*/9, /*existed=*/true));
  absl::StatusOr<StoreReceipt> answer;
  EXPECT_FALSE(session.TakeAnswer(&answer)) << "one copy is not R = 2";
  EXPECT_EQ(session.TakeSends(), std::vector<NodeId>{kB});
  ASSERT_NE(session.winner(), nullptr);
  EXPECT_EQ(*session.winner(), kA) << "its bytes, not ours";
  session.OnSent(kB, Took(/*version=*/4, /*existed=*/true));
  EXPECT_FALSE(session.TakeAnswer(&answer)) << "a third version is no copy";
  EXPECT_EQ(session.TakeSends(), std::vector<NodeId>{kC});
  session.OnSent(kC, Took(/*version=*/9));
  ASSERT_TRUE(session.TakeAnswer(&answer));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->holders, (std::vector<NodeId>{kA, kC}));
  EXPECT_EQ(answer->version, ObjectVersion(9));
  EXPECT_TRUE(answer->existed);
  EXPECT_TRUE(session.done());
}

TEST(StoreSessionTest, AWinnerWithTooFewCopiesIsAnError) {
  StoreSession session(kOurs, {kA, kB}, 2, Durability::kReplicated);
  session.TakeSends();
  session.OnSent(kA, Took(/*version=*/9, /*existed=*/true));
  session.TakeSends();
  session.OnSent(kB, absl::UnavailableError("died"));
  absl::StatusOr<StoreReceipt> answer;
  ASSERT_TRUE(session.TakeAnswer(&answer));
  EXPECT_TRUE(absl::IsUnavailable(answer.status())) << answer.status();
  EXPECT_NE(answer.status().message().find("1 of 2"), std::string::npos);
}

TEST(StoreSessionTest, ARetryCompletesTheCopies) {
  StoreSession session(kOurs, {kA, kB}, 2, Durability::kReplicated);
  session.TakeSends();
  session.OnSent(kA, Took(1, /*existed=*/true));
  EXPECT_EQ(session.TakeSends(), std::vector<NodeId>{kB});
  session.OnSent(kB, Took());
  absl::StatusOr<StoreReceipt> answer;
  ASSERT_TRUE(session.TakeAnswer(&answer));
  EXPECT_TRUE(answer->existed);
  EXPECT_EQ(answer->holders.size(), 2u);
}

TEST(StoreSessionTest, TooFewCopiesIsAnErrorThatSaysHowMany) {
  StoreSession session(kOurs, {kA, kB}, 2, Durability::kReplicated);
  session.TakeSends();
  session.OnSent(kA, Took());
  session.TakeSends();
  session.OnSent(kB, absl::ResourceExhaustedError("full"));
  absl::StatusOr<StoreReceipt> answer;
  ASSERT_TRUE(session.TakeAnswer(&answer));
  EXPECT_TRUE(absl::IsResourceExhausted(answer.status()));
  EXPECT_NE(answer.status().message().find("1 of 2"), std::string::npos);
}

TEST(StoreSessionTest, TooFewOwnersAliveIsSaid) {
  StoreSession session(kOurs, {kA}, 2, Durability::kReplicated);
  session.TakeSends();
  session.OnSent(kA, Took());
  absl::StatusOr<StoreReceipt> answer;
  ASSERT_TRUE(session.TakeAnswer(&answer));
  EXPECT_TRUE(absl::IsUnavailable(answer.status()));
  EXPECT_NE(answer.status().message().find("live owners: 1"), std::string::npos)
      << answer.status();
}

TEST(StoreSessionTest, TheDeadlineAnswersAndSendsNothingMore) {
  StoreSession session(kOurs, {kA, kB}, 2, Durability::kReplicated);
  session.TakeSends();
  session.OnDeadline();
  absl::StatusOr<StoreReceipt> answer;
  ASSERT_TRUE(session.TakeAnswer(&answer));
  EXPECT_TRUE(absl::IsDeadlineExceeded(answer.status()));
  session.OnSent(kA, Took());
  EXPECT_TRUE(session.TakeSends().empty());
  EXPECT_TRUE(session.done());
}

// `replicated` promises R distinct holders of one version, whatever fails on
// the way and whatever the owners hold already.
TEST(StoreSessionTest, AnOkAnswerAlwaysHasItsCopies) {
  for (uint32_t seed = 1; seed <= 1000; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const int replicas = static_cast<int>(random() % 3) + 1;
    StoreSession session(kOurs, {kA, kB, kC}, replicas,
                         Durability::kReplicated);
    std::map<NodeId, ObjectVersion> held;
    for (const NodeId& node : {kA, kB, kC}) {
      if (random() % 4 == 0) held[node] = ObjectVersion(8 + random() % 2);
    }
    std::vector<NodeId> open;
    absl::StatusOr<StoreReceipt> answer;
    bool answered = false;
    while (!session.done()) {
      for (NodeId& node : session.TakeSends()) open.push_back(node);
      if (session.TakeAnswer(&answer)) answered = true;
      if (session.done()) break;
      ASSERT_FALSE(open.empty());
      std::shuffle(open.begin(), open.end(), random);
      const NodeId node = open.back();
      open.pop_back();
      if (random() % 3 != 0) {
        const ObjectVersion sent =
            session.winner() == nullptr ? kOurs : held.at(*session.winner());
        const auto [at, is_new] = held.try_emplace(node, sent);
        session.OnSent(node, PushReceipt{at->second, !is_new});
      } else {
        session.OnSent(node, absl::UnavailableError("died"));
      }
      if (session.TakeAnswer(&answer)) answered = true;
    }
    ASSERT_TRUE(answered);
    if (!answer.ok()) continue;
    const std::set<NodeId> holders(answer->holders.begin(),
                                   answer->holders.end());
    EXPECT_GE(static_cast<int>(holders.size()), replicas);
    for (const NodeId& node : holders) {
      EXPECT_EQ(held.at(node), answer->version) << node.name();
    }
  }
}

}  // namespace
}  // namespace kdn::delivery
