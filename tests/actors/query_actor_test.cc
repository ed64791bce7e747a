#include "actors/lease_actor.h"
#include "actors/lookup_actor.h"
#include "actors/node_actor.h"
#include "actors/report_actor.h"
#include "tests/actors/actors_fixture.h"

namespace kdn::actors {
namespace {

using Results = std::vector<LookupResult>;
using Statuses = std::vector<absl::Status>;

class QueryActorTest : public ActorsTest {
 protected:
  void Lookup(std::vector<int> numbers, Answer<Results>* answer,
              absl::Duration timeout = absl::Seconds(1)) {
    LookupJob job{{}, "t", In(timeout), answer->AsReply()};
    for (int i : numbers) job.chunks.push_back(RefOf(i));
    system_.spawn(MakeLookupActor, node_.get(), std::move(job));
    Run();
  }
  void Lease(LeaseOp op, int i, uint64_t session, Answer<Statuses>* answer) {
    LeaseJob job{op,
                 {RefOf(i)},
                 "t",
                 SessionId(session),
                 In(absl::Seconds(10)),
                 In(absl::Seconds(1)),
                 answer->AsReply()};
    system_.spawn(MakeLeaseActor, node_.get(), std::move(job));
    Run();
  }
  const StorageActor& StorageOf(const NodeId& id) {
    return live_[id].storage[0];
  }
};

TEST_F(QueryActorTest, ALookupFindsChunksWhereverTheyAre) {
  const int here = NumberOwnedBy({a_, b_});
  const int there = NumberOwnedBy({c_, b_});
  const int nowhere = NumberOwnedBy({b_, c_});
  Put(StorageOf(a_), here, 4096);
  Put(StorageOf(b_), there, 4096);  // not at the first owner
  Answer<Results> answer;
  Lookup({here, there, nowhere}, &answer);
  ASSERT_EQ(answer.times, 1);
  ASSERT_TRUE(answer.value.ok()) << answer.value.status();
  EXPECT_TRUE((*answer.value)[0].hit);
  EXPECT_EQ((*answer.value)[0].node, a_);
  EXPECT_TRUE((*answer.value)[1].hit);
  EXPECT_EQ((*answer.value)[1].node, b_);
  EXPECT_FALSE((*answer.value)[2].hit);
}

TEST_F(QueryActorTest, AnOwnerThatDiedIsPassedOver) {
  const int i = NumberOwnedBy({b_, c_});
  Put(StorageOf(c_), i, 4096);
  caf::anon_send_exit(StorageOf(b_), caf::exit_reason::kill);
  Run();
  Answer<Results> answer;
  Lookup({i}, &answer);
  ASSERT_EQ(answer.times, 1);
  EXPECT_TRUE((*answer.value)[0].hit);
}

TEST_F(QueryActorTest, ASilentOwnerIsLeftWhenTheViewDropsIt) {
  const int i = NumberOwnedBy({b_, c_});
  Put(StorageOf(c_), i, 4096);
  live_[b_].storage = {SpawnSilent()};
  Publish();
  Answer<Results> answer;
  Lookup({i}, &answer);
  EXPECT_EQ(answer.times, 0);
  live_.erase(b_);
  Publish();
  Advance(absl::Milliseconds(200));
  ASSERT_EQ(answer.times, 1);
  EXPECT_TRUE((*answer.value)[0].hit);
}

TEST_F(QueryActorTest, ASilentOwnerIsAMissAtTheDeadlineAndAnsweredOnce) {
  const int i = NumberOwnedBy({b_, c_});
  live_[b_].storage = {SpawnSilent()};
  live_[c_].storage = {SpawnSilent()};
  Publish();
  Answer<Results> answer;
  Lookup({i}, &answer, absl::Milliseconds(300));
  Advance(absl::Milliseconds(240));
  EXPECT_EQ(answer.times, 0);
  Advance(absl::Milliseconds(200));
  ASSERT_EQ(answer.times, 1);
  ASSERT_TRUE(answer.value.ok()) << answer.value.status();
  EXPECT_FALSE((*answer.value)[0].hit);
}

TEST_F(QueryActorTest, APinHoldsEveryCopy) {
  const int i = NumberOwnedBy({b_, c_});
  Put(StorageOf(b_), i, 4096);
  Put(StorageOf(c_), i, 4096);
  Answer<Statuses> pinned;
  Lease(LeaseOp::kPin, i, 11, &pinned);
  ASSERT_EQ(pinned.times, 1);
  ASSERT_TRUE(pinned.value.ok());
  EXPECT_TRUE((*pinned.value)[0].ok()) << (*pinned.value)[0];
  Answer<Statuses> removed;
  Lease(LeaseOp::kRemove, i, 22, &removed);
  ASSERT_EQ(removed.times, 1);
  EXPECT_TRUE(absl::IsFailedPrecondition((*removed.value)[0]))
      << (*removed.value)[0];
  Answer<Results> found;
  Lookup({i}, &found);
  EXPECT_TRUE((*found.value)[0].hit)
      << "no copy is removed while one copy is pinned";
}

TEST_F(QueryActorTest, ARemovalIsNotDoneWhileAnOwnerIsAway) {
  const int i = NumberOwnedBy({b_, c_});
  Put(StorageOf(b_), i, 4096);
  live_.erase(c_);
  Publish();
  Answer<Statuses> away;
  Lease(LeaseOp::kRemove, i, 11, &away);
  ASSERT_EQ(away.times, 1);
  EXPECT_TRUE(absl::IsUnavailable((*away.value)[0])) << (*away.value)[0];
  Answer<Results> found;
  Lookup({i}, &found);
  EXPECT_FALSE((*found.value)[0].hit) << "the live owner has removed its copy";
  live_[c_].storage = {SpawnStorage()};
  Publish();
  Put(StorageOf(c_), i, 4096);
  Answer<Statuses> back;
  Lease(LeaseOp::kRemove, i, 11, &back);
  ASSERT_EQ(back.times, 1);
  EXPECT_TRUE((*back.value)[0].ok()) << (*back.value)[0];
}

TEST_F(QueryActorTest, ALeaseDoesNotWaitForAnOwnerThatDies) {
  const int i = NumberOwnedBy({b_, c_});
  Put(StorageOf(b_), i, 4096);
  live_[c_].storage = {SpawnSilent()};
  Publish();
  Answer<Statuses> removed;
  Lease(LeaseOp::kRemove, i, 11, &removed);
  EXPECT_EQ(removed.times, 0);
  live_.erase(c_);
  Publish();
  Advance(absl::Milliseconds(200));
  ASSERT_EQ(removed.times, 1) << "the deadline is a second away";
  EXPECT_TRUE(absl::IsUnavailable((*removed.value)[0])) << (*removed.value)[0];
}

TEST_F(QueryActorTest, ALeaseAtASilentOwnerEndsAtTheDeadline) {
  const int i = NumberOwnedBy({b_, c_});
  live_[c_].storage = {SpawnSilent()};
  Publish();
  Answer<Statuses> removed;
  Lease(LeaseOp::kRemove, i, 11, &removed);
  Advance(absl::Milliseconds(900));
  EXPECT_EQ(removed.times, 0);
  Advance(absl::Milliseconds(200));
  ASSERT_EQ(removed.times, 1);
  EXPECT_TRUE(absl::IsUnavailable((*removed.value)[0])) << (*removed.value)[0];
}

TEST_F(QueryActorTest, AReportDoesNotWaitForANodeThatDies) {
  const NodeActor own = system_.spawn(
      MakeNodeActor,
      NodeActorDeps{node_.get(), {StorageOf(a_)}, nullptr, clock_.Now()});
  live_[a_].node = own;
  // A node actor whose partition never answers.
  const NodeActor silent = system_.spawn(
      MakeNodeActor,
      NodeActorDeps{node_.get(), {SpawnSilent()}, nullptr, clock_.Now()});
  live_[b_].node = silent;
  live_.erase(c_);
  Publish();
  Answer<std::vector<NodeStatus>> report;
  system_.spawn(MakeReportActor, node_.get(),
                ReportJob{In(absl::Seconds(1)), report.AsReply()});
  Run();
  EXPECT_EQ(report.times, 0);
  live_.erase(b_);
  Publish();
  Advance(absl::Milliseconds(200));
  ASSERT_EQ(report.times, 1) << "the deadline is a second away";
  ASSERT_EQ(report.value->size(), 3u);
  EXPECT_TRUE((*report.value)[0].alive);
  EXPECT_FALSE((*report.value)[1].alive);
  EXPECT_FALSE((*report.value)[2].alive);
  live_.erase(a_);
  caf::anon_send_exit(own, caf::exit_reason::user_shutdown);
  caf::anon_send_exit(silent, caf::exit_reason::user_shutdown);
  Run();
}

TEST_F(QueryActorTest, PinningAChunkThatNoNodeHoldsIsNotFound) {
  Answer<Statuses> answer;
  Lease(LeaseOp::kPin, NumberOwnedBy({b_, c_}), 11, &answer);
  ASSERT_EQ(answer.times, 1);
  EXPECT_TRUE(absl::IsNotFound((*answer.value)[0])) << (*answer.value)[0];
}

TEST_F(QueryActorTest, ABusyPartitionIsReportedWithItsLastMetrics) {
  const StorageActor storage = SpawnStorage();
  Put(storage, 1, 4096);
  const NodeActor busy = system_.spawn(
      MakeNodeActor,
      NodeActorDeps{
          node_.get(), {storage, SpawnSilent()}, nullptr, clock_.Now()});
  for (int i = 1; i <= 2; ++i) {
    SCOPED_TRACE(i);
    auto asker = caf::scoped_actor(system_);
    auto report = asker->request(busy, caf::infinite, ReportAtom::value);
    Run();
    Advance(absl::Seconds(1));
    report.receive(
        [&](const NodeReport& answer) {
          EXPECT_EQ(FromWire(answer.metrics)["objects"], 1u);
        },
        [&](const caf::error& error) { FAIL() << system_.render(error); });
    caf::anon_send_exit(storage, caf::exit_reason::user_shutdown);
    Run();
  }
  caf::anon_send_exit(busy, caf::exit_reason::user_shutdown);
  Run();
}

}  // namespace
}  // namespace kdn::actors
