#include "delivery/store_session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <utility>

namespace kdn::delivery {
namespace {

const NodeId kA("a");
const NodeId kB("b");
const NodeId kC("c");
const NodeId kSelf("self");
const ObjectVersion kOurs(1);

PushReceipt Took(uint64_t version = 1, bool existed = false) {
  return PushReceipt{ObjectVersion(version), existed};
}

const absl::Time kNow = absl::UnixEpoch() + absl::Hours(1);

StoreTask TaskOf(std::vector<NodeId> owners, int copies,
                 Durability durability) {
  StoreTask task;
  task.self = kSelf;
  task.version = kOurs;
  task.owners = std::move(owners);
  task.copies = copies;
  task.durability = durability;
  task.deadline = kNow + absl::Seconds(2);
  return task;
}

// A StoreSession, its actions so far, and its answer.
class Driven {
 public:
  Driven(std::vector<NodeId> owners, int copies, Durability durability)
      : Driven(TaskOf(std::move(owners), copies, durability)) {}
  explicit Driven(StoreTask task) : session_(std::move(task)) {}

  // Takes the session's actions. Returns the nodes that get a copy.
  std::vector<NodeId> TakeSends() {
    std::vector<NodeId> nodes;
    for (StoreAction& action : session_.TakeActions(now)) {
      if (const auto* push = std::get_if<PushTo>(&action)) {
        nodes.push_back(push->peer);
        pushes.push_back(*push);
      } else if (const auto* copy = std::get_if<CopyFrom>(&action)) {
        nodes.push_back(copy->to);
        copies.push_back(*copy);
      } else if (const auto* commit = std::get_if<CommitHere>(&action)) {
        nodes.push_back(kSelf);
        commits.push_back(*commit);
      } else if (auto* answer = std::get_if<AnswerStore>(&action)) {
        EXPECT_FALSE(answer_) << "answered once";
        answer_ = std::move(answer->receipt);
      } else if (std::holds_alternative<StoreIsOver>(action)) {
        EXPECT_FALSE(over_) << "over once";
        over_ = true;
      }
    }
    session_.CheckInvariants();
    return nodes;
  }
  void OnSent(const NodeId& node, const absl::StatusOr<PushReceipt>& result) {
    session_.OnSent(node, result);
    session_.CheckInvariants();
  }
  void OnDeadline() { session_.OnDeadline(); }
  // Returns true once, when the session has answered.
  bool TakeAnswer(absl::StatusOr<StoreReceipt>* answer) {
    for (NodeId& node : TakeSends()) taken_.push_back(std::move(node));
    if (!answer_ || std::exchange(told_, true)) return false;
    *answer = *answer_;
    return true;
  }
  // The nodes that get a copy, since the last call.
  std::vector<NodeId> Sends() {
    std::vector<NodeId> nodes = std::exchange(taken_, {});
    for (NodeId& node : TakeSends()) nodes.push_back(std::move(node));
    return nodes;
  }
  bool done() {
    for (NodeId& node : TakeSends()) taken_.push_back(std::move(node));
    EXPECT_EQ(session_.done(), over_);
    return over_;
  }

  absl::Time now = kNow;
  std::vector<PushTo> pushes;
  std::vector<CopyFrom> copies;
  std::vector<CommitHere> commits;

 private:
  StoreSession session_;
  std::vector<NodeId> taken_;
  std::optional<absl::StatusOr<StoreReceipt>> answer_;
  bool told_ = false;
  bool over_ = false;
};

TEST(StoreSessionTest, TheFirstOwnerDecidesBeforeTheOthersAreSent) {
  Driven session({kA, kB, kC}, 2, Durability::kReplicated);
  EXPECT_EQ(session.Sends(), std::vector<NodeId>{kA});
  EXPECT_TRUE(session.Sends().empty());
  session.OnSent(kA, Took());
  absl::StatusOr<StoreReceipt> answer;
  EXPECT_FALSE(session.TakeAnswer(&answer)) << "one copy is not R = 2";
  EXPECT_EQ(session.Sends(), std::vector<NodeId>{kB});
  session.OnSent(kB, Took());
  ASSERT_TRUE(session.TakeAnswer(&answer));
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer->holders, (std::vector<NodeId>{kA, kB}));
  EXPECT_FALSE(answer->existed);
  EXPECT_TRUE(session.done());
}

TEST(StoreSessionTest,
     ACacheStoreIsAnsweredAfterOneCopyAndStillMakesTheOthers) {
  Driven session({kA, kB}, 2, Durability::kCache);
  session.Sends();
  session.OnSent(kA, Took());
  absl::StatusOr<StoreReceipt> answer;
  EXPECT_TRUE(session.TakeAnswer(&answer));
  EXPECT_EQ(session.Sends(), std::vector<NodeId>{kB});
  EXPECT_FALSE(session.done());
  session.OnSent(kB, absl::UnavailableError("died"));
  EXPECT_TRUE(session.done());
}

TEST(StoreSessionTest, TheNextOwnerReplacesADeadOwner) {
  Driven session({kA, kB, kC}, 2, Durability::kReplicated);
  session.Sends();
  session.OnSent(kA, absl::UnavailableError("died"));
  EXPECT_EQ(session.Sends(), std::vector<NodeId>{kB});
  session.OnSent(kB, Took());
  EXPECT_EQ(session.Sends(), std::vector<NodeId>{kC});
  session.OnSent(kC, Took());
  absl::StatusOr<StoreReceipt> answer;
  ASSERT_TRUE(session.TakeAnswer(&answer));
  EXPECT_EQ(answer->holders, (std::vector<NodeId>{kB, kC}));
}

TEST(StoreSessionTest, ALostRaceSendsOurBytesToNoOtherNode) {
  Driven session({kA, kB}, 2, Durability::kCache);
  session.Sends();
  EXPECT_TRUE(session.copies.empty());
  session.OnSent(kA, Took(/*version=*/9, /*existed=*/true));
  absl::StatusOr<StoreReceipt> answer;
  ASSERT_TRUE(session.TakeAnswer(&answer));
  EXPECT_TRUE(answer->existed);
  EXPECT_EQ(answer->version, ObjectVersion(9));
  EXPECT_TRUE(session.Sends().empty());
  EXPECT_TRUE(session.done());
}

TEST(StoreSessionTest, ALostRaceIsAnsweredOnceTheWinnerHasItsCopies) {
  Driven session({kA, kB, kC}, 2, Durability::kDurable);
  session.Sends();
  session.OnSent(kA, Took(/*version=*/9, /*existed=*/true));
  absl::StatusOr<StoreReceipt> answer;
  EXPECT_FALSE(session.TakeAnswer(&answer)) << "one copy is not R = 2";
  EXPECT_EQ(session.Sends(), std::vector<NodeId>{kB});
  ASSERT_EQ(session.copies.size(), 1u);
  EXPECT_EQ(session.copies[0].winner, kA) << "the winner's bytes";
  EXPECT_EQ(session.copies[0].version, ObjectVersion(9));
  session.OnSent(kB, Took(/*version=*/4, /*existed=*/true));
  EXPECT_FALSE(session.TakeAnswer(&answer))
      << "a third version does not count as a copy";
  EXPECT_EQ(session.Sends(), std::vector<NodeId>{kC});
  session.OnSent(kC, Took(/*version=*/9));
  ASSERT_TRUE(session.TakeAnswer(&answer));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->holders, (std::vector<NodeId>{kA, kC}));
  EXPECT_EQ(answer->version, ObjectVersion(9));
  EXPECT_TRUE(answer->existed);
  EXPECT_TRUE(session.done());
}

TEST(StoreSessionTest, AWinnerWithTooFewCopiesIsAnError) {
  Driven session({kA, kB}, 2, Durability::kReplicated);
  session.Sends();
  session.OnSent(kA, Took(/*version=*/9, /*existed=*/true));
  session.Sends();
  session.OnSent(kB, absl::UnavailableError("died"));
  absl::StatusOr<StoreReceipt> answer;
  ASSERT_TRUE(session.TakeAnswer(&answer));
  EXPECT_TRUE(absl::IsUnavailable(answer.status())) << answer.status();
  EXPECT_NE(answer.status().message().find("1 of 2"), std::string::npos);
}

TEST(StoreSessionTest, ARetryCompletesTheCopies) {
  Driven session({kA, kB}, 2, Durability::kReplicated);
  session.Sends();
  session.OnSent(kA, Took(1, /*existed=*/true));
  EXPECT_EQ(session.Sends(), std::vector<NodeId>{kB});
  session.OnSent(kB, Took());
  absl::StatusOr<StoreReceipt> answer;
  ASSERT_TRUE(session.TakeAnswer(&answer));
  EXPECT_TRUE(answer->existed);
  EXPECT_EQ(answer->holders.size(), 2u);
}

TEST(StoreSessionTest, TooFewCopiesIsAnErrorThatSaysHowMany) {
  Driven session({kA, kB}, 2, Durability::kReplicated);
  session.Sends();
  session.OnSent(kA, Took());
  session.Sends();
  session.OnSent(kB, absl::ResourceExhaustedError("full"));
  absl::StatusOr<StoreReceipt> answer;
  ASSERT_TRUE(session.TakeAnswer(&answer));
  EXPECT_TRUE(absl::IsResourceExhausted(answer.status()));
  EXPECT_NE(answer.status().message().find("1 of 2"), std::string::npos);
}

TEST(StoreSessionTest, OwnersTooOldForTheObjectAreUnimplemented) {
  Driven session({kA, kB}, 2, Durability::kReplicated);
  session.Sends();
  session.OnSent(kA, Took());
  session.Sends();
  session.OnSent(kB, absl::UnimplementedError("object format 4"));
  absl::StatusOr<StoreReceipt> answer;
  ASSERT_TRUE(session.TakeAnswer(&answer));
  EXPECT_TRUE(absl::IsUnimplemented(answer.status())) << answer.status();
}

TEST(StoreSessionTest, TooFewLiveOwnersIsAnErrorThatSaysSo) {
  Driven session({kA}, 2, Durability::kReplicated);
  session.Sends();
  session.OnSent(kA, Took());
  absl::StatusOr<StoreReceipt> answer;
  ASSERT_TRUE(session.TakeAnswer(&answer));
  EXPECT_TRUE(absl::IsUnavailable(answer.status()));
  EXPECT_NE(answer.status().message().find("live owners: 1"), std::string::npos)
      << answer.status();
}

TEST(StoreSessionTest, TheDeadlineEndsTheStoreWithAnError) {
  Driven session({kA, kB}, 2, Durability::kReplicated);
  session.Sends();
  session.OnDeadline();
  absl::StatusOr<StoreReceipt> answer;
  ASSERT_TRUE(session.TakeAnswer(&answer));
  EXPECT_TRUE(absl::IsDeadlineExceeded(answer.status()));
  session.OnSent(kA, Took());
  EXPECT_TRUE(session.Sends().empty());
  EXPECT_TRUE(session.done());
}

TEST(StoreSessionTest, ANodeMayTakeHalfOfTheTimeThatIsLeft) {
  Driven session({kA, kB}, 2, Durability::kReplicated);
  session.Sends();
  EXPECT_EQ(session.pushes[0].deadline, kNow + absl::Seconds(1));
  session.now += absl::Seconds(1);
  session.OnSent(kA, absl::DeadlineExceededError("no room by then"));
  session.Sends();
  EXPECT_EQ(session.pushes[1].deadline, kNow + absl::Milliseconds(1500));
}

TEST(StoreSessionTest, AnObjectBuiltInPassingMemoryIsCopiedWhenItIsKept) {
  StoreTask task = TaskOf({kSelf}, 1, Durability::kReplicated);
  task.built = BuildPlace::kPassing;
  Driven session(task);
  session.Sends();
  ASSERT_EQ(session.commits.size(), 1u);
  EXPECT_EQ(session.commits[0].copy_until, kNow + absl::Seconds(1));
  task.built = BuildPlace::kPartition;
  Driven in_place(task);
  in_place.Sends();
  ASSERT_EQ(in_place.commits.size(), 1u);
  EXPECT_FALSE(in_place.commits[0].copy_until.has_value());
}

TEST(StoreSessionTest, TheWinnersCopyGetsTheTtlOfOurStore) {
  StoreTask task = TaskOf({kA, kSelf}, 2, Durability::kReplicated);
  task.expires = kNow + absl::Seconds(30);
  Driven session(std::move(task));
  session.Sends();
  session.now += absl::Seconds(1);
  session.OnSent(kA, Took(/*version=*/9, /*existed=*/true));
  EXPECT_EQ(session.Sends(), std::vector<NodeId>{kSelf});
  EXPECT_TRUE(session.commits.empty()) << "our bytes have lost";
  EXPECT_EQ(session.copies[0].ttl, absl::Seconds(29));
  EXPECT_EQ(session.copies[0].deadline, kNow + absl::Milliseconds(1500));
}

TEST(StorePlanTest, OnlyAHolderBuildsInItsPartition) {
  const std::vector<NodeId> owners = {kA, kSelf, kB};
  EXPECT_EQ(BuildPlaceOf(owners, kSelf, 1), BuildPlace::kPassing);
  EXPECT_EQ(BuildPlaceOf(owners, kSelf, 2), BuildPlace::kPartition);
  EXPECT_EQ(BuildPlaceOf(owners, kC, 3), BuildPlace::kPassing);
  EXPECT_EQ(BuildPlaceOf({}, kSelf, 2), BuildPlace::kPassing);
}

TEST(StorePlanTest, OnlyACacheStoreOfTheFirstOwnerIsKeptRaw) {
  using codec::LosslessForm;
  const std::vector<NodeId> first = {kSelf, kA};
  const std::vector<NodeId> second = {kA, kSelf};
  EXPECT_EQ(LosslessFormOf(Durability::kCache, first, kSelf),
            LosslessForm::kRaw);
  // The object goes to the first owner before the store is answered.
  EXPECT_EQ(LosslessFormOf(Durability::kCache, second, kSelf),
            LosslessForm::kCoded);
  EXPECT_EQ(LosslessFormOf(Durability::kCache, {}, kSelf),
            LosslessForm::kCoded);
  for (const Durability durability :
       {Durability::kReplicated, Durability::kDurable}) {
    EXPECT_EQ(LosslessFormOf(durability, first, kSelf), LosslessForm::kCoded);
  }
}

// `replicated` promises R distinct holders of one version, for any failures and
// for any versions that the owners hold already.
TEST(StoreSessionTest, AnOkAnswerAlwaysHasItsCopies) {
  for (uint32_t seed = 1; seed <= 1000; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const int replicas = static_cast<int>(random() % 3) + 1;
    Driven session({kA, kB, kC}, replicas, Durability::kReplicated);
    std::map<NodeId, ObjectVersion> held;
    for (const NodeId& node : {kA, kB, kC}) {
      if (random() % 4 == 0) held[node] = ObjectVersion(8 + random() % 2);
    }
    std::vector<NodeId> open;
    absl::StatusOr<StoreReceipt> answer;
    bool answered = false;
    while (!session.done()) {
      for (NodeId& node : session.Sends()) open.push_back(node);
      if (session.TakeAnswer(&answer)) answered = true;
      if (session.done()) break;
      ASSERT_FALSE(open.empty());
      std::shuffle(open.begin(), open.end(), random);
      const NodeId node = open.back();
      open.pop_back();
      if (random() % 3 != 0) {
        const ObjectVersion sent =
            session.copies.empty() ? kOurs : held.at(session.copies[0].winner);
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
