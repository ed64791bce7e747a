#include "delivery/lease_session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "tests/delivery/query_driver.h"

namespace kdn::delivery {
namespace {

const absl::Status kOk = absl::OkStatus();
const absl::Status kMissing = absl::NotFoundError("not there");
const absl::Status kPinned = absl::FailedPreconditionError("pinned");

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

class Driven : public QueryDriver<LeaseSession, AskLease, AnswerLease> {
 public:
  explicit Driven(LeaseTask task) : QueryDriver(std::move(task)) { Take(); }

  void Answer(size_t ask, const std::vector<absl::Status>& of_chunks) {
    session.OnAnswer(asks[ask].number, of_chunks);
    Take();
  }
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
  EXPECT_FALSE(driven.answer.has_value());
  driven.Answer(2, {kMissing});
  ASSERT_TRUE(driven.answer.has_value());
  EXPECT_TRUE(absl::IsNotFound(driven.answer->statuses[0]));
  EXPECT_TRUE(driven.answer->statuses[1].ok());
}

TEST(LeaseSessionTest, OnePinnedCopyKeepsTheChunk) {
  Driven driven(TaskOf(LeaseOp::kPin, {{kA, kB}}));
  driven.session.OnNoAnswer(driven.asks[0].number);
  driven.Answer(1, {kOk});
  EXPECT_TRUE(driven.answer->statuses[0].ok()) << driven.answer->statuses[0];
}

TEST(LeaseSessionTest, ACopyThatIsNotRemovedFailsTheRemoval) {
  Driven driven(TaskOf(LeaseOp::kRemove, {{kA, kB, kC}}));
  driven.Answer(0, {kOk});
  driven.Answer(1, {kPinned});
  driven.Answer(2, {kMissing});
  EXPECT_EQ(driven.answer->statuses[0], kPinned);
}

TEST(LeaseSessionTest, ARemovalIsNotDoneWhileAnOwnerIsAway) {
  for (const LeaseOp op : {LeaseOp::kPin, LeaseOp::kUnpin, LeaseOp::kRemove}) {
    LeaseTask task = TaskOf(op, {{kA}});
    task.away[0] = kB;
    Driven driven(std::move(task));
    driven.Answer(0, {kOk});
    EXPECT_EQ(driven.answer->statuses[0].ok(), op != LeaseOp::kRemove);
  }
}

TEST(LeaseSessionTest, ARequestWithoutOwnersIsAnsweredAtOnce) {
  LeaseTask task = TaskOf(LeaseOp::kRemove, {{}, {}});
  task.away[1] = kB;
  Driven driven(std::move(task));
  ASSERT_TRUE(driven.answer.has_value());
  EXPECT_TRUE(absl::IsNotFound(driven.answer->statuses[0]));
  EXPECT_TRUE(absl::IsUnavailable(driven.answer->statuses[1]));
}

TEST(LeaseSessionTest, AnOwnerThatDiesIsNotWaitedFor) {
  for (const LeaseOp op : {LeaseOp::kPin, LeaseOp::kRemove}) {
    Driven driven(TaskOf(op, {{kA, kB}}));
    driven.Answer(0, {kOk});
    EXPECT_EQ(driven.wake_at, kNow + PendingAsks::kWatch);
    driven.session.OnTime(driven.wake_at,
                          [](const NodeId& id) { return id != kB; });
    driven.Take(driven.wake_at);
    ASSERT_TRUE(driven.answer.has_value());
    EXPECT_EQ(driven.answer->statuses[0].ok(), op == LeaseOp::kPin);
    driven.session.OnAnswer(driven.asks[1].number, {kOk});
    driven.Take(driven.wake_at);
  }
}

TEST(LeaseSessionTest, ASilentOwnerIsAwaitedUntilTheDeadline) {
  Driven driven(TaskOf(LeaseOp::kRemove, {{kA, kB}}));
  driven.Answer(0, {kOk});
  driven.session.OnTime(kNow + absl::Milliseconds(950), AllLive);
  driven.Take(kNow + absl::Milliseconds(950));
  EXPECT_FALSE(driven.answer.has_value());
  EXPECT_EQ(driven.wake_at, kDeadline);
  driven.session.OnTime(kDeadline, AllLive);
  driven.Take(kDeadline);
  ASSERT_TRUE(driven.answer.has_value());
  EXPECT_TRUE(absl::IsUnavailable(driven.answer->statuses[0]))
      << driven.answer->statuses[0];
}

// The chunks without a status must not count as NOT_FOUND.
TEST(LeaseSessionTest, AnAnswerForTooFewChunksIsAnError) {
  Driven driven(TaskOf(LeaseOp::kRemove, {{kA}, {kA}}));
  driven.Answer(0, {kOk});
  ASSERT_TRUE(driven.answer.has_value());
  for (const absl::Status& status : driven.answer->statuses) {
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
