#include "delivery/lease_session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace kdn::delivery {
namespace {

const NodeId kA("a");
const NodeId kB("b");
const NodeId kC("c");
const absl::Time kNow = absl::UnixEpoch() + absl::Hours(1);
const absl::Time kDeadline = kNow + absl::Seconds(1);

const absl::Status kOk = absl::OkStatus();
const absl::Status kMissing = absl::NotFoundError("not there");
const absl::Status kPinned = absl::FailedPreconditionError("pinned");

bool AllLive(const NodeId&) { return true; }

LeaseTask TaskOf(LeaseOp op, std::vector<std::vector<NodeId>> owners) {
  LeaseTask task;
  task.op = op;
  task.owners = std::move(owners);
  task.away.resize(task.owners.size());
  task.shards.resize(task.owners.size());
  task.partitions = {{kA, 1}, {kB, 1}, {kC, 1}};
  task.deadline = kDeadline;
  return task;
}

// A LeaseSession and what it has asked for.
class Driven {
 public:
  explicit Driven(LeaseTask task) : session(std::move(task)) { Take(kNow); }

  void Take(absl::Time now) {
    for (const LeaseAction& action : session.TakeActions(now)) {
      if (const auto* ask = std::get_if<AskLease>(&action)) {
        asks.push_back(*ask);
      } else if (const auto* wake = std::get_if<WakeAt>(&action)) {
        wake_at = wake->at;
      } else if (const auto* answer = std::get_if<AnswerLease>(&action)) {
        EXPECT_FALSE(answered) << "answered once";
        answered = true;
        statuses = answer->statuses;
      }
    }
    session.CheckInvariants();
  }
  void Answer(size_t ask, const std::vector<absl::Status>& of_chunks) {
    session.OnAnswer(asks[ask].number, of_chunks);
    Take(kNow);
  }

  LeaseSession session;
  std::vector<AskLease> asks;
  absl::Time wake_at = absl::InfinitePast();
  bool answered = false;
  std::vector<absl::Status> statuses;
};

TEST(LeaseSessionTest, EveryOwnerIsAskedOnce) {
  Driven driven(TaskOf(LeaseOp::kPin, {{kB, kA}, {kA, kC}}));
  ASSERT_EQ(driven.asks.size(), 3u);
  EXPECT_EQ(driven.asks[0].node, kA);
  EXPECT_EQ(driven.asks[0].chunks, (std::vector<int>{0, 1}));
  EXPECT_EQ(driven.asks[1].node, kB);
  EXPECT_EQ(driven.asks[2].node, kC);
  driven.Answer(0, {kMissing, kOk});
  driven.Answer(1, {kMissing});
  EXPECT_FALSE(driven.answered);
  driven.Answer(2, {kMissing});
  ASSERT_TRUE(driven.answered);
  EXPECT_TRUE(absl::IsNotFound(driven.statuses[0]));
  EXPECT_TRUE(driven.statuses[1].ok());
}

TEST(LeaseSessionTest, OnePinnedCopyKeepsTheChunk) {
  Driven driven(TaskOf(LeaseOp::kPin, {{kA, kB}}));
  driven.session.OnNoAnswer(driven.asks[0].number);
  driven.Answer(1, {kOk});
  EXPECT_TRUE(driven.statuses[0].ok()) << driven.statuses[0];
}

TEST(LeaseSessionTest, ACopyThatStaysFailsTheRemoval) {
  Driven driven(TaskOf(LeaseOp::kRemove, {{kA, kB, kC}}));
  driven.Answer(0, {kOk});
  driven.Answer(1, {kPinned});
  driven.Answer(2, {kMissing});
  EXPECT_EQ(driven.statuses[0], kPinned);
}

TEST(LeaseSessionTest, ARemovalIsNotDoneWhileAnOwnerIsAway) {
  for (const LeaseOp op : {LeaseOp::kPin, LeaseOp::kUnpin, LeaseOp::kRemove}) {
    LeaseTask task = TaskOf(op, {{kA}});
    task.away[0] = kB;
    Driven driven(std::move(task));
    driven.Answer(0, {kOk});
    EXPECT_EQ(driven.statuses[0].ok(), op != LeaseOp::kRemove);
  }
}

TEST(LeaseSessionTest, WithoutAnyOwnerItIsAnsweredAtOnce) {
  LeaseTask task = TaskOf(LeaseOp::kRemove, {{}, {}});
  task.away[1] = kB;
  Driven driven(std::move(task));
  ASSERT_TRUE(driven.answered);
  EXPECT_TRUE(absl::IsNotFound(driven.statuses[0]));
  EXPECT_TRUE(absl::IsUnavailable(driven.statuses[1]));
}

TEST(LeaseSessionTest, AnOwnerThatDiesIsNotWaitedFor) {
  for (const LeaseOp op : {LeaseOp::kPin, LeaseOp::kRemove}) {
    Driven driven(TaskOf(op, {{kA, kB}}));
    driven.Answer(0, {kOk});
    EXPECT_EQ(driven.wake_at, kNow + PendingAsks::kWatch);
    driven.session.OnTime(driven.wake_at,
                          [](const NodeId& id) { return id != kB; });
    driven.Take(driven.wake_at);
    ASSERT_TRUE(driven.answered);
    EXPECT_EQ(driven.statuses[0].ok(), op == LeaseOp::kPin);
    driven.session.OnAnswer(driven.asks[1].number, {kOk});
    driven.Take(driven.wake_at);
  }
}

TEST(LeaseSessionTest, ASilentOwnerIsAwaitedUntilTheDeadline) {
  Driven driven(TaskOf(LeaseOp::kRemove, {{kA, kB}}));
  driven.Answer(0, {kOk});
  driven.session.OnTime(kNow + absl::Milliseconds(950), AllLive);
  driven.Take(kNow + absl::Milliseconds(950));
  EXPECT_FALSE(driven.answered);
  EXPECT_EQ(driven.wake_at, kDeadline);
  driven.session.OnTime(kDeadline, AllLive);
  driven.Take(kDeadline);
  ASSERT_TRUE(driven.answered);
  EXPECT_TRUE(absl::IsUnavailable(driven.statuses[0])) << driven.statuses[0];
}

// A removal whose answer got lost on the way said NOT_FOUND once.
TEST(LeaseSessionTest, AnAnswerThatIsTooShortIsAnError) {
  Driven driven(TaskOf(LeaseOp::kRemove, {{kA}, {kA}}));
  driven.Answer(0, {kOk});
  ASSERT_TRUE(driven.answered);
  for (const absl::Status& status : driven.statuses) {
    EXPECT_FALSE(status.ok() || absl::IsNotFound(status)) << status;
  }
}

TEST(LeaseSessionTest, TheOrderOfTheAnswersDoesNotMatter) {
  const std::vector<absl::Status> answers = {kOk, kMissing, kPinned};
  for (const LeaseOp op : {LeaseOp::kPin, LeaseOp::kUnpin, LeaseOp::kRemove}) {
    std::vector<int> order = {0, 1, 2};
    do {
      absl::Status merged = kMissing;
      for (const int i : order) merged = MergeLeases(op, merged, answers[i]);
      EXPECT_EQ(merged, op == LeaseOp::kRemove ? kPinned : kOk);
    } while (std::next_permutation(order.begin(), order.end()));
  }
}

}  // namespace
}  // namespace kdn::delivery
