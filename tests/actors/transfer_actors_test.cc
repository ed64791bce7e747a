// Retrieves and stores. The test decides how each of their transfers ends.
#include <gmock/gmock.h>

#include <algorithm>
#include <atomic>
#include <numeric>
#include <thread>

#include "actors/node_actor.h"
#include "actors/node_services.h"
#include "actors/retrieve_actor.h"
#include "actors/store_actor.h"
#include "codec/encoder.h"
#include "tests/actors/actors_fixture.h"

namespace kdn::actors {
namespace {

ModelSpec SmallModel() {
  ModelSpec spec;
  spec.num_layers = 2;
  spec.num_kv_heads = 1;
  spec.head_dim = 16;
  spec.rope.rotary_dim = 16;
  return spec;
}

using transfer::AdmissionGate;

// Takes all memory that the class may hold.
AdmissionGate::Pass TakeAllOf(PassingMemory& memory, WorkClass work_class) {
  return memory.gate.TryTake(memory.gate.most_of(work_class), work_class);
}

class RetrieveActorTest : public ActorsTest {
 protected:
  struct Outcomes {
    int times = 0;
    std::vector<ChunkOutcome> of;
  };

  void Retrieve(const std::vector<int>& numbers, absl::Duration timeout) {
    std::vector<ChunkRef> refs;
    for (const int number : numbers) refs.push_back(RefOf(number));
    RetrieveRefs(refs, timeout);
  }
  void RetrieveRefs(const std::vector<ChunkRef>& refs, absl::Duration timeout) {
    const KvShape shape = ShapeOf(SmallModel(), 4);
    delivery::RetrieveRequest request{
        std::make_shared<const ModelSpec>(SmallModel()),
        *Namespace::Parse("t"),
        {},
        WholeOf(SmallModel()),
        LevelSet::All(),
        In(timeout)};
    cancellation_ = request.cancellation;
    memory_.assign(shape.bytes() * refs.size(), std::byte{0});
    for (size_t i = 0; i < refs.size(); ++i) {
      request.chunks.push_back(
          {refs[i],
           {0, 1, 2, 3},
           MutableKvView(memory_.data() + i * shape.bytes(), shape,
                         KvStrides::HeadMajor(shape))});
    }
    RetrieveJob job;
    job.context = std::make_shared<transfer::RetrieveContext>(
        std::move(request), [](int, int) {},
        transfer::DecodeMeans{&node_->calibrations, &node_->decoding,
                              node_->clock});
    job.done = std::make_shared<delivery::Done<std::vector<ChunkOutcome>>>(
        [this](std::vector<ChunkOutcome> outcomes) {
          ++outcomes_.times;
          outcomes_.of = std::move(outcomes);
        });
    retrieve_ = system_.spawn(MakeRetrieveActor, node_.get(), std::move(job));
    Run();
  }
  // A chunk of zeros, encoded at the base level.
  struct Encoded {
    ChunkRef ref;
    storage::ObjectInfo info;
    std::vector<std::byte> bytes;
  };
  // The built-in calibration under another id.
  static std::shared_ptr<const codec::Calibration> Foreign() {
    const auto geometry = codec::GeometryOf(ShapeOf(SmallModel(), 4));
    const auto built_in = codec::Calibration::Uncalibrated(geometry);
    return codec::Calibration::Create(
               codec::CalibrationId(DigestBuilder("foreign").Finish()),
               FingerprintOf(SmallModel()), geometry, built_in->tables(),
               std::vector<codec::StreamTransform>(
                   4, built_in->Of(0, KvPart::kK, 0)))
        .value();
  }
  Encoded EncodedOwnedBy(
      const std::vector<NodeId>& owners,
      std::shared_ptr<const codec::Calibration> calibration) const {
    codec::ObjectHeader header{ChunkIdentity{FingerprintOf(SmallModel()),
                                             *Namespace::Parse("t"),
                                             ChunkKey(),
                                             std::string(kRawVariant),
                                             {0, 6, 7, 8}},
                               ShapeOf(SmallModel(), 4),
                               SmallModel().rope,
                               {0, 1, 2, 3},
                               LevelSet::Of(Level::kBase),
                               codec::CalibrationId()};
    Encoded chunk;
    do {
      ++header.identity.tokens[0];
      chunk.ref = ChunkRef{KeyOf(header)};
    } while (node_->view.Get()->OwnersOf(chunk.ref, 2) != owners);
    chunk.bytes.resize(codec::ObjectBytesMax(header));
    auto encoder = codec::ObjectEncoder::Create(header, std::move(calibration),
                                                absl::MakeSpan(chunk.bytes));
    EXPECT_TRUE(encoder.ok()) << encoder.status();
    const std::vector<std::byte> zeros(header.shape.bytes());
    const KvView kv(zeros.data(), header.shape,
                    KvStrides::HeadMajor(header.shape));
    for (int layer = 0; layer < header.shape.layers; ++layer) {
      EXPECT_TRUE(encoder->EncodeLayer(kv.Layer(layer)).ok());
    }
    const auto finished = encoder->Finish();
    EXPECT_TRUE(finished.ok()) << finished.status();
    chunk.bytes.resize(finished->bytes);
    chunk.info.key = chunk.ref.key;
    chunk.info.shard = node_->view.Get()->ShardOf(chunk.ref);
    chunk.info.ns = "t";
    chunk.info.version = finished->version;
    chunk.info.bytes = finished->bytes;
    chunk.info.levels = header.levels.bits();
    return chunk;
  }
  // Stores the chunk in this node.
  void Commit(const Encoded& chunk) {
    Answer<std::shared_ptr<storage::ArenaBlock>> block;
    caf::anon_send(
        live_[a_].storage[0],
        ReserveCall{chunk.bytes.size(), In(absl::Seconds(1)), block.AsReply()});
    Run();
    ASSERT_TRUE(block.value.ok()) << block.value.status();
    std::copy(chunk.bytes.begin(), chunk.bytes.end(),
              (*block.value)->bytes().begin());
    Answer<delivery::PushReceipt> committed;
    caf::anon_send(live_[a_].storage[0],
                   CommitCall{chunk.info, *std::move(block.value),
                              Durability::kReplicated, absl::InfinitePast(),
                              In(absl::Seconds(1)), committed.AsReply()});
    Run();
    ASSERT_TRUE(committed.value.ok()) << committed.value.status();
  }
  // The numbers of `count` chunks with these owners.
  std::vector<int> NumbersOwnedBy(const std::vector<NodeId>& owners,
                                  int count) const {
    std::vector<int> numbers;
    for (int next = 0; std::ssize(numbers) < count; ++next) {
      next = NumberOwnedBy(owners, next);
      numbers.push_back(next);
    }
    return numbers;
  }
  // Ends fetch `i` with `status`; nothing further is received.
  void EndFetch(size_t i, const absl::Status& status) {
    transport_.fetches[i].sink->OnDone(status);
    transport_.fetches[i].sink = nullptr;
    Run();
  }

  // Ends the open fetches: an actor ends after its fetches, and the actor
  // system waits for all actors.
  void TearDown() override {
    for (size_t i = 0; i < transport_.fetches.size(); ++i) {
      if (transport_.fetches[i].sink != nullptr) {
        EndFetch(i, absl::UnavailableError("the test is over"));
      }
    }
    EXPECT_EQ(outcomes_.times, 1);
  }

  std::vector<std::byte> memory_;
  std::shared_ptr<Cancellation> cancellation_;
  Outcomes outcomes_;
  RetrieveActor retrieve_;
};

TEST_F(RetrieveActorTest, APeersCopyThatIsDamagedIsDroppedThere) {
  const int i = NumberOwnedBy({b_, c_});
  Put(live_[b_].storage[0], i, 4096);  // bytes that are no object
  NodeContext& b = SpawnNode(b_);
  Retrieve({i}, absl::Seconds(2));
  ASSERT_EQ(transport_.fetches.size(), 1u);
  transport_.fetches[0].sink = nullptr;
  delivery::AttemptResult damaged;
  damaged.status = absl::DataLossError("a checksum fails");
  damaged.version = ObjectVersion(7);
  caf::anon_send(retrieve_, AttemptEnd{0, b_, damaged});
  Run();
  ASSERT_EQ(transport_.fetches.size(), 2u)
      << "the next owner is asked meanwhile";
  b.pool.Drain();
  Run();
  Answer<delivery::PeerService::Held> held;
  caf::anon_send(
      live_[b_].storage[0],
      ReadCall{RefOf(i).key, "t", In(absl::Seconds(1)), held.AsReply()});
  Run();
  EXPECT_TRUE(absl::IsNotFound(held.value.status())) << held.value.status();
  cancellation_->Cancel();
  EndFetch(1, absl::UnavailableError("cut"));
}

TEST_F(RetrieveActorTest, APeerThatBreaksIsReplacedByTheNextOwner) {
  const int i = NumberOwnedBy({b_, c_});
  Retrieve({i}, absl::Seconds(2));
  ASSERT_EQ(transport_.fetches.size(), 1u);
  EXPECT_EQ(transport_.fetches[0].request.peer, b_);
  EndFetch(0, absl::UnavailableError("cut"));
  ASSERT_EQ(transport_.fetches.size(), 2u);
  EXPECT_EQ(transport_.fetches[1].request.peer, c_);
  EXPECT_EQ(outcomes_.times, 0);
  transport_.fetches[1].sink->OnNoHit(0, absl::NotFoundError("not there"),
                                      ObjectVersion());
  EndFetch(1, absl::OkStatus());
  // The last owner in the order is this node, which has no copy either.
  ASSERT_EQ(outcomes_.times, 1);
  EXPECT_EQ(outcomes_.of[0].kind, OutcomeKind::kFailed)
      << "a miss would hide that one owner did not answer";
  EXPECT_TRUE(absl::IsUnavailable(outcomes_.of[0].why)) << outcomes_.of[0].why;
  EXPECT_EQ(node_->meters().Get("chunks_failed"), 1u);
}

TEST_F(RetrieveActorTest, WithoutTheCalibrationTheNextOwnerIsAsked) {
  const Encoded chunk = EncodedOwnedBy({a_, b_}, Foreign());
  Commit(chunk);
  RetrieveRefs({chunk.ref}, absl::Seconds(2));
  RunWithPool();
  // The next owner is asked, because its copy may need another calibration.
  for (size_t i = 0; i < transport_.fetches.size(); ++i) {
    transport_.fetches[i].sink->OnNoHit(0, absl::NotFoundError("not there"),
                                        ObjectVersion());
    EndFetch(i, absl::OkStatus());
  }
  EXPECT_GE(transport_.fetches.size(), 1u);
  ASSERT_EQ(outcomes_.times, 1);
  EXPECT_EQ(outcomes_.of[0].kind, OutcomeKind::kFailed);
  EXPECT_TRUE(absl::IsFailedPrecondition(outcomes_.of[0].why));
  EXPECT_THAT(std::string(outcomes_.of[0].why.message()),
              testing::HasSubstr(ShortHex(Foreign()->id())));
  // The copy is kept, and is delivered once the node has the calibration.
  node_->calibrations.Add(Foreign());
  outcomes_ = {};
  RetrieveRefs({chunk.ref}, absl::Seconds(2));
  RunWithPool();
  ASSERT_EQ(outcomes_.times, 1);
  EXPECT_EQ(outcomes_.of[0].kind, OutcomeKind::kHit) << outcomes_.of[0].why;
  EXPECT_EQ(outcomes_.of[0].level, Level::kBase);
}

TEST_F(RetrieveActorTest, AChunkThatNoNodeHoldsIsAMiss) {
  Retrieve({NumberOwnedBy({a_, b_})}, absl::Seconds(2));
  for (size_t i = 0; i < transport_.fetches.size(); ++i) {
    transport_.fetches[i].sink->OnNoHit(0, absl::NotFoundError("not there"),
                                        ObjectVersion());
    EndFetch(i, absl::OkStatus());
  }
  ASSERT_EQ(outcomes_.times, 1);
  EXPECT_EQ(outcomes_.of[0].kind, OutcomeKind::kMiss);
  EXPECT_EQ(node_->meters().Get("chunks_missed"), 1u);
}

TEST_F(RetrieveActorTest, AFetchMaySendAsMuchAsItsLinkCarriesInTime) {
  const int first = NumberOwnedBy({b_, c_});
  const int second = NumberOwnedBy({b_, c_}, first + 1);
  Retrieve({first}, absl::Seconds(2));
  ASSERT_EQ(transport_.fetches.size(), 1u);
  EXPECT_TRUE(transport_.fetches[0].request.budget.unlimited())
      << "nothing is known of the link yet";
  cancellation_->Cancel();
  EndFetch(0, absl::CancelledError("nobody wants it"));
  outcomes_ = {};
  node_->links.OnTransfer(b_, 10'000'000, absl::Seconds(1), clock_.Now());
  Retrieve({first, second}, absl::Seconds(2));
  ASSERT_EQ(transport_.fetches.size(), 2u);
  // 0.8 of the measured rate, for half of the time. The other half is for a
  // replica.
  EXPECT_EQ(transport_.fetches[1].request.budget.bytes_max, 8'000'000u);
  cancellation_->Cancel();
  EndFetch(1, absl::UnavailableError("cut"));
}

TEST_F(RetrieveActorTest, NoOtherOwnerIsAskedForAChunkToRecompute) {
  Retrieve({NumberOwnedBy({b_, c_})}, absl::Seconds(2));
  ASSERT_EQ(transport_.fetches.size(), 1u);
  transport_.fetches[0].sink->OnRecompute(0);
  EndFetch(0, absl::OkStatus());
  EXPECT_EQ(transport_.fetches.size(), 1u);
  ASSERT_EQ(outcomes_.times, 1);
  EXPECT_EQ(outcomes_.of[0].kind, OutcomeKind::kRecompute);
  EXPECT_EQ(node_->meters().Get("chunks_recomputed"), 1u);
}

TEST_F(RetrieveActorTest, ChunksOfOnePeerAreOneFetch) {
  const int first = NumberOwnedBy({b_, c_});
  const int second = NumberOwnedBy({b_, c_}, first + 1);
  const int third = NumberOwnedBy({c_, b_});
  Retrieve({first, third, second}, absl::Seconds(2));
  ASSERT_EQ(transport_.fetches.size(), 2u);
  for (const HeldTransport::HeldFetch& fetch : transport_.fetches) {
    EXPECT_EQ(fetch.request.chunks.size(), fetch.request.peer == b_ ? 2u : 1u);
  }
}

TEST_F(RetrieveActorTest, NoFetchAsksForMoreThanAPeerTakes) {
  constexpr int kMost = delivery::kItemsPerFetchMax;
  node_->passing =
      std::make_unique<PassingMemory>(*storage::Arena::Create(32u << 20));
  Retrieve(NumbersOwnedBy({b_, c_}, 2 * kMost + 1), absl::Seconds(2));
  cancellation_->Cancel();
  std::vector<size_t> sizes;
  for (const HeldTransport::HeldFetch& fetch : transport_.fetches) {
    EXPECT_EQ(fetch.request.peer, b_);
    sizes.push_back(fetch.request.chunks.size());
  }
  EXPECT_EQ(sizes, (std::vector<size_t>{kMost, kMost, 1}));
}

TEST_F(RetrieveActorTest, SmallChunksCountAsThePagesTheyTake) {
  Retrieve(NumbersOwnedBy({b_, c_}, 200), absl::Seconds(2));
  cancellation_->Cancel();
  ASSERT_EQ(transport_.fetches.size(), 1u);
  EXPECT_EQ(transport_.fetches[0].request.chunks.size(),
            node_->passing->gate.guaranteed(WorkClass::kRead) /
                storage::Arena::kPageBytes);
}

TEST_F(RetrieveActorTest, PastTheDeadlineTheAnswerWaitsForTheTransport) {
  Retrieve({NumberOwnedBy({b_, c_})}, absl::Milliseconds(500));
  Advance(absl::Milliseconds(600));
  EXPECT_TRUE(cancellation_->cancelled());
  // No answer yet: the transport may still write into the engine's memory.
  EXPECT_EQ(outcomes_.times, 0);
  EndFetch(0, absl::DeadlineExceededError("late"));
  ASSERT_EQ(outcomes_.times, 1);
  EXPECT_EQ(outcomes_.of[0].kind, OutcomeKind::kFailed);
  EXPECT_TRUE(absl::IsDeadlineExceeded(outcomes_.of[0].why));
  EXPECT_EQ(transport_.fetches.size(), 1u)
      << "no owner is asked after the deadline";
}

TEST_F(RetrieveActorTest, NoOtherNodeIsAskedForAnEngineThatWentAway) {
  Retrieve({NumberOwnedBy({b_, c_})}, absl::Seconds(2));
  cancellation_->Cancel();
  EndFetch(0, absl::UnavailableError("cut"));
  EXPECT_EQ(outcomes_.times, 1);
  EXPECT_EQ(transport_.fetches.size(), 1u);
}

TEST_F(RetrieveActorTest, AFetchStopsWhenTheEngineGoesAway) {
  Retrieve({NumberOwnedBy({b_, c_}), NumberOwnedBy({c_, b_})},
           absl::Seconds(2));
  ASSERT_EQ(transport_.fetches.size(), 2u);
  EndFetch(0, absl::UnavailableError("cut"));
  ASSERT_EQ(transport_.fetches.size(), 3u);
  cancellation_->Cancel();
  Run();
  EXPECT_EQ(transport_.cancelled, (std::vector<size_t>{1, 2}));
  EXPECT_EQ(outcomes_.times, 0) << "the fetches may still write";
  EndFetch(1, absl::CancelledError("nobody wants it"));
  EndFetch(2, absl::CancelledError("nobody wants it"));
  ASSERT_EQ(outcomes_.times, 1);
  EXPECT_TRUE(absl::IsCancelled(outcomes_.of[1].why)) << outcomes_.of[1].why;
}

TEST_F(RetrieveActorTest, APeerThatHungIsNotTheFirstToBeAskedAgain) {
  const int i = NumberOwnedBy({b_, c_});
  Retrieve({i}, absl::Seconds(2));
  ASSERT_EQ(transport_.fetches.size(), 1u);
  Advance(absl::Seconds(1));
  EndFetch(0, absl::DeadlineExceededError("no answer"));
  ASSERT_EQ(transport_.fetches.size(), 2u);
  transport_.fetches[1].sink->OnRecompute(0);
  EndFetch(1, absl::OkStatus());
  ASSERT_EQ(outcomes_.times, 1);
  const auto first_asked = [&] {
    outcomes_ = {};
    Retrieve({i}, absl::Seconds(2));
    const NodeId peer = transport_.fetches.back().request.peer;
    transport_.fetches.back().sink->OnRecompute(0);
    EndFetch(transport_.fetches.size() - 1, absl::OkStatus());
    return peer;
  };
  EXPECT_EQ(first_asked(), c_);
  Advance(delivery::PeerHealth::kBackoff);
  EXPECT_EQ(first_asked(), b_) << "the peer is tried again";
  EXPECT_EQ(first_asked(), b_) << "and has recovered";
}

TEST_F(RetrieveActorTest, WaitsForMemoryInsteadOfFailing) {
  AdmissionGate& room = node_->passing->gate;
  AdmissionGate::Pass others = TakeAllOf(*node_->passing, WorkClass::kRead);
  ASSERT_NE(others, nullptr);
  Retrieve({NumberOwnedBy({b_, c_})}, absl::Seconds(2));
  EXPECT_TRUE(transport_.fetches.empty());
  EXPECT_EQ(outcomes_.times, 0);
  others = nullptr;
  Run();
  ASSERT_EQ(transport_.fetches.size(), 1u);
  EXPECT_GT(room.used(), 0u);
  cancellation_->Cancel();
  EndFetch(0, absl::UnavailableError("cut"));
  EXPECT_EQ(room.used(), 0u) << "the retrieve gave its memory back";
}

TEST_F(RetrieveActorTest, WaitsForMemoryNoLongerThanItsDeadline) {
  AdmissionGate& room = node_->passing->gate;
  AdmissionGate::Pass others = TakeAllOf(*node_->passing, WorkClass::kRead);
  Retrieve({NumberOwnedBy({b_, c_})}, absl::Milliseconds(500));
  Advance(absl::Milliseconds(600));
  ASSERT_EQ(outcomes_.times, 1);
  EXPECT_TRUE(absl::IsDeadlineExceeded(outcomes_.of[0].why));
  others = nullptr;
  Run();
  EXPECT_TRUE(transport_.fetches.empty());
  EXPECT_EQ(room.used(), 0u) << "the grant was for a retrieve that has ended";
}

TEST_F(RetrieveActorTest, MemoryThatComesAfterTheEngineLeftIsNotUsed) {
  AdmissionGate& room = node_->passing->gate;
  AdmissionGate::Pass others = TakeAllOf(*node_->passing, WorkClass::kRead);
  Retrieve({NumberOwnedBy({b_, c_})}, absl::Seconds(2));
  cancellation_->Cancel();
  others = nullptr;
  Run();
  EXPECT_TRUE(transport_.fetches.empty());
  ASSERT_EQ(outcomes_.times, 1);
  EXPECT_TRUE(absl::IsCancelled(outcomes_.of[0].why)) << outcomes_.of[0].why;
  EXPECT_EQ(room.used(), 0u);
}

TEST_F(RetrieveActorTest, ACancelledRetrieveLeavesTheLineForMemory) {
  AdmissionGate& room = node_->passing->gate;
  const AdmissionGate::Pass others =
      TakeAllOf(*node_->passing, WorkClass::kRead);
  Retrieve({NumberOwnedBy({b_, c_})}, absl::Seconds(2));
  EXPECT_EQ(room.waiting(), 1u);
  cancellation_->Cancel();
  Run();
  EXPECT_EQ(room.waiting(), 0u);
  EXPECT_EQ(outcomes_.times, 1);
}

TEST_F(RetrieveActorTest, ARetrieveFailsAtOnceWhenTooManyWaitForMemory) {
  AdmissionGate& room = node_->passing->gate;
  const AdmissionGate::Pass others =
      TakeAllOf(*node_->passing, WorkClass::kRead);
  for (size_t i = 0; i < Admission::Options().waiting_max; ++i) {
    room.Request({.amount = 1, .work_class = WorkClass::kRead},
                 [](const absl::StatusOr<AdmissionGate::Pass>&) {});
  }
  Retrieve({NumberOwnedBy({b_, c_})}, absl::Seconds(2));
  ASSERT_EQ(outcomes_.times, 1);
  EXPECT_EQ(outcomes_.of[0].kind, OutcomeKind::kFailed);
  EXPECT_TRUE(absl::IsResourceExhausted(outcomes_.of[0].why))
      << outcomes_.of[0].why;
}

using BeginStoreTest = ActorsTest;

TEST_F(BeginStoreTest, HeadsTooLargeForATransformAreRefusedWithTheReason) {
  ModelSpec model = SmallModel();
  model.head_dim = 512;
  const auto begin = [&](LevelSet levels) {
    delivery::StoreRequest request{std::make_shared<const ModelSpec>(model),
                                   IdentityOwnedBy(model, 4, {b_, c_}),
                                   {0, 1, 2, 3},
                                   levels,
                                   Durability::kReplicated,
                                   absl::ZeroDuration(),
                                   In(absl::Seconds(1))};
    absl::Status status = absl::UnknownError("not answered");
    NodeServices(&system_, node_.get())
        .BeginStore(
            std::move(request),
            [&](const absl::StatusOr<std::unique_ptr<delivery::ChunkWriter>>&
                    stream) { status = stream.status(); });
    RunWithPool();
    return status;
  };
  const absl::Status refused =
      begin(LevelSet::Of(Level::kInt8).With(Level::kBase));
  EXPECT_TRUE(absl::IsInvalidArgument(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()),
              testing::HasSubstr("head_dim is 512"));
  EXPECT_TRUE(begin(LevelSet::Of(Level::kInt8)).ok());
}

TEST_F(BeginStoreTest, AStoreOnAnOwnerLeavesTheLineWhenTheEngineGivesUp) {
  live_[a_].storage = {SpawnStorage(/*arena_bytes=*/4096)};
  Publish();
  Answer<std::shared_ptr<storage::ArenaBlock>> all;
  caf::anon_send(live_[a_].storage[0],
                 ReserveCall{4096, In(absl::Seconds(1)), all.AsReply()});
  Run();
  ASSERT_TRUE(all.value.ok()) << all.value.status();
  const ModelSpec model = SmallModel();
  delivery::StoreRequest request{std::make_shared<const ModelSpec>(model),
                                 IdentityOwnedBy(model, 1, {a_, b_}),
                                 {0},
                                 LevelSet::Of(Level::kLossless),
                                 Durability::kReplicated,
                                 absl::ZeroDuration(),
                                 In(absl::Seconds(1))};
  const std::shared_ptr<Cancellation> cancellation = request.cancellation;
  absl::Status status = absl::UnknownError("not answered");
  NodeServices(&system_, node_.get())
      .BeginStore(
          std::move(request),
          [&](const absl::StatusOr<std::unique_ptr<delivery::ChunkWriter>>&
                  stream) { status = stream.status(); });
  Run();
  EXPECT_TRUE(absl::IsUnknown(status)) << "waits for room: " << status;
  cancellation->Cancel();
  Run();
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
}

// Stores that this node builds in passing, because it is no owner.
class PassingMemoryTest : public ActorsTest {
 protected:
  void BeginStore(const ModelSpec& model, int tokens) {
    delivery::StoreRequest request{std::make_shared<const ModelSpec>(model),
                                   IdentityOwnedBy(model, tokens, {b_, c_}),
                                   std::vector<int32_t>(tokens),
                                   LevelSet::Of(Level::kLossless),
                                   Durability::kReplicated,
                                   absl::ZeroDuration(),
                                   In(absl::Milliseconds(500))};
    std::iota(request.positions.begin(), request.positions.end(), 0);
    cancellation_ = request.cancellation;
    NodeServices(&system_, node_.get())
        .BeginStore(
            std::move(request),
            [this](const absl::StatusOr<std::unique_ptr<delivery::ChunkWriter>>&
                       stream) {
              ++times_;
              status_ = stream.status();
            });
  }

  std::shared_ptr<Cancellation> cancellation_;
  int times_ = 0;
  absl::Status status_;
};

TEST_F(PassingMemoryTest, AStoreWaitsNoLongerThanItsDeadline) {
  const NodeActor ticking = system_.spawn(
      MakeNodeActor, NodeActorDeps{node_.get(), {}, nullptr, clock_.Now()});
  const AdmissionGate::Pass others =
      TakeAllOf(*node_->passing, WorkClass::kWrite);
  BeginStore(SmallModel(), 4);
  Advance(absl::Milliseconds(480));
  EXPECT_EQ(times_, 0) << status_;
  Advance(absl::Milliseconds(60));
  EXPECT_EQ(times_, 1);
  EXPECT_TRUE(absl::IsDeadlineExceeded(status_)) << status_;
  caf::anon_send_exit(ticking, caf::exit_reason::user_shutdown);
  Run();
}

TEST_F(PassingMemoryTest, ACancelledStoreLeavesTheLine) {
  AdmissionGate::Pass others = TakeAllOf(*node_->passing, WorkClass::kWrite);
  BeginStore(SmallModel(), 4);
  EXPECT_EQ(node_->passing->gate.waiting(), 1u);
  cancellation_->Cancel();
  EXPECT_EQ(node_->passing->gate.waiting(), 0u);
  EXPECT_EQ(times_, 1);
  EXPECT_TRUE(absl::IsCancelled(status_)) << status_;
  others = nullptr;
  EXPECT_EQ(times_, 1);
  BeginStore(SmallModel(), 4);
  RunWithPool();
  EXPECT_TRUE(status_.ok()) << status_;
  cancellation_->Cancel();
  EXPECT_EQ(times_, 2) << "a store that has begun is answered once";
}

TEST_F(PassingMemoryTest, NoStoreTakesWhatReadsAreGuaranteed) {
  ModelSpec model = SmallModel();
  model.num_layers = 3;
  model.head_dim = 256;
  BeginStore(model, 200);  // 614 KB; stores may hold half of 1 MiB
  EXPECT_EQ(times_, 1);
  EXPECT_TRUE(absl::IsResourceExhausted(status_)) << status_;
  EXPECT_THAT(std::string(status_.message()),
              testing::HasSubstr("give the node more memory"));
  EXPECT_EQ(node_->passing->arena->used_bytes(), 0u);
  BeginStore(model, 100);
  RunWithPool();
  EXPECT_TRUE(status_.ok()) << status_;
}

TEST_F(PassingMemoryTest, TheGateGrantsNoMoreThanTheArenaCanGive) {
  const storage::Arena& arena = *node_->passing->arena;
  const size_t pages = arena.budget_bytes() / storage::Arena::kPageBytes;
  bool is_counting = true;
  std::vector<AdmissionGate::Pass> passes;
  for (size_t i = 0; i < 2 * pages; ++i) {
    node_->passing->Request(
        {.amount = 1, .work_class = WorkClass::kWrite},
        [&](const absl::StatusOr<AdmissionGate::Pass>& pass) {
          if (is_counting && pass.ok()) passes.push_back(*pass);
        });
  }
  is_counting = false;  // a pass that goes lets the next request in
  EXPECT_GT(passes.size(), 0u);
  EXPECT_LE(passes.size(), pages) << "each takes a page";
}

// A storage actor must not compute the tables of a store.
TEST_F(BeginStoreTest, AStoreOnAnOwnerBeginsOnTheWorkerPool) {
  const ModelSpec model = SmallModel();
  delivery::StoreRequest request{std::make_shared<const ModelSpec>(model),
                                 IdentityOwnedBy(model, 1, {a_, b_}),
                                 {0},
                                 LevelSet::Of(Level::kInt8),
                                 Durability::kReplicated,
                                 absl::ZeroDuration(),
                                 In(absl::Seconds(1))};
  absl::Status status = absl::UnknownError("not answered");
  std::thread::id thread;
  NodeServices(&system_, node_.get())
      .BeginStore(
          std::move(request),
          [&](const absl::StatusOr<std::unique_ptr<delivery::ChunkWriter>>&
                  stream) {
            status = stream.status();
            thread = std::this_thread::get_id();
          });
  RunWithPool();
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_NE(thread, std::this_thread::get_id()) << "actors run on this thread";
}

class StoreActorTest : public ActorsTest {
 protected:
  // Stores a chunk from passing memory, as a node that is no owner does.
  void Store(int i, Durability durability = kReplicated,
             ObjectVersion version = ObjectVersion(7)) {
    auto block = *node_->passing->arena->Allocate(4096);
    std::fill(block->bytes().begin(), block->bytes().end(), std::byte{5});
    StoreJob job{RefOf(i),
                 InfoOf(i, 4096),
                 std::move(block),
                 delivery::BuildPlace::kPassing,
                 durability,
                 absl::InfinitePast(),
                 In(absl::Seconds(1)),
                 SessionId(3),
                 answer_.AsReply()};
    job.info.version = version;
    system_.spawn(MakeStoreActor, node_.get(), std::move(job));
    RunWithPool();
  }
  void EndPush(size_t i, absl::StatusOr<delivery::PushReceipt> result) {
    transport_.pushes[i].request.object = nullptr;
    std::exchange(transport_.pushes[i].done, nullptr)(std::move(result));
    RunWithPool();
  }
  void TearDown() override {
    for (size_t i = 0; i < transport_.pushes.size(); ++i) {
      if (transport_.pushes[i].done != nullptr) {
        EndPush(i, absl::UnavailableError("the test is over"));
      }
    }
    EXPECT_EQ(answer_.times, 1);
  }
  static constexpr auto kReplicated = Durability::kReplicated;
  const delivery::PushReceipt taken_{ObjectVersion(7), false};
  Answer<StoreReceipt> answer_;
};

TEST_F(StoreActorTest, TheFirstOwnerTakesItAloneThenTheReplica) {
  Store(NumberOwnedBy({b_, c_}));
  ASSERT_EQ(transport_.pushes.size(), 1u);
  EXPECT_EQ(transport_.pushes[0].request.peer, b_);
  EndPush(0, taken_);
  ASSERT_EQ(transport_.pushes.size(), 2u);
  EXPECT_EQ(transport_.pushes[1].request.peer, c_);
  for (const HeldTransport::HeldPush& push : transport_.pushes) {
    EXPECT_EQ(push.request.requester, RequesterId(3)) << "sessions take turns";
  }
  EXPECT_EQ(answer_.times, 0) << "replicated means two copies";
  EndPush(1, taken_);
  ASSERT_EQ(answer_.times, 1);
  ASSERT_TRUE(answer_.value.ok()) << answer_.value.status();
  EXPECT_EQ(answer_.value->holders, (std::vector<NodeId>{b_, c_}));
}

TEST_F(StoreActorTest, TheWinnersNodeSendsItsObjectOn) {
  const int i = NumberOwnedBy({b_, c_});
  Put(live_[b_].storage[0], i, 4096);
  SpawnNode(b_);
  Store(i, Durability::kDurable, ObjectVersion(8));
  EndPush(0, delivery::PushReceipt{ObjectVersion(7), true});
  EXPECT_EQ(answer_.times, 0) << "durable means two copies";
  ASSERT_EQ(transport_.pushes.size(), 2u);
  const delivery::PushRequest& copy = transport_.pushes[1].request;
  EXPECT_EQ(copy.peer, c_);
  EXPECT_EQ(copy.ref.key, RefOf(i).key);
  EXPECT_EQ(copy.durability, Durability::kDurable);
  EXPECT_EQ(copy.object->bytes()[4095], static_cast<std::byte>(i))
      << "the winner's bytes";
  EndPush(1, taken_);
  ASSERT_EQ(answer_.times, 1);
  ASSERT_TRUE(answer_.value.ok()) << answer_.value.status();
  EXPECT_EQ(answer_.value->version, ObjectVersion(7));
  EXPECT_EQ(answer_.value->holders, (std::vector<NodeId>{b_, c_}));
}

TEST_F(StoreActorTest, AnOwnerThatFailsIsReplacedByTheNextOne) {
  Store(NumberOwnedBy({b_, c_, a_}));
  EndPush(0, absl::UnavailableError("cut"));
  ASSERT_EQ(transport_.pushes.size(), 2u);
  EndPush(1, taken_);  // this node is the next owner and needs no push
  ASSERT_EQ(answer_.times, 1);
  ASSERT_TRUE(answer_.value.ok()) << answer_.value.status();
  EXPECT_EQ(answer_.value->holders, (std::vector<NodeId>{c_, a_}));
}

TEST_F(StoreActorTest, ACopyThatTheNodeKeepsLeavesPassingMemory) {
  const int i = NumberOwnedBy({b_, c_, a_});
  Store(i);
  EndPush(0, absl::UnavailableError("cut"));
  EndPush(1, taken_);
  ASSERT_TRUE(answer_.value.ok()) << answer_.value.status();
  EXPECT_EQ(node_->passing->arena->used_bytes(), 0u);
  Answer<delivery::PeerService::Held> held;
  caf::anon_send(
      live_[a_].storage[0],
      ReadCall{RefOf(i).key, "t", In(absl::Seconds(1)), held.AsReply()});
  Run();
  ASSERT_TRUE(held.value.ok()) << held.value.status();
  EXPECT_EQ(held.value->object->size(), 4096u);
  EXPECT_EQ(held.value->object->bytes()[4095], std::byte{5});
}

TEST_F(StoreActorTest, AStoreGoesOnWhenThisNodeHasNoRoom) {
  live_[a_].storage = {SpawnStorage(/*arena_bytes=*/4096)};
  Publish();
  Answer<std::shared_ptr<storage::ArenaBlock>> all;
  caf::anon_send(live_[a_].storage[0],
                 ReserveCall{4096, In(absl::Seconds(1)), all.AsReply()});
  Run();
  ASSERT_TRUE(all.value.ok()) << all.value.status();
  Store(NumberOwnedBy({b_, a_, c_}));
  EndPush(0, taken_);
  ASSERT_EQ(transport_.pushes.size(), 1u) << "the store waits for room here";
  Advance(absl::Milliseconds(600));
  ASSERT_EQ(transport_.pushes.size(), 2u);
  EXPECT_EQ(transport_.pushes[1].request.peer, c_);
  EndPush(1, taken_);
  ASSERT_TRUE(answer_.value.ok()) << answer_.value.status();
  EXPECT_EQ(answer_.value->holders, (std::vector<NodeId>{b_, c_}));
}

TEST_F(StoreActorTest, APeerWithoutRoomLeavesTimeForTheNext) {
  Store(NumberOwnedBy({b_, c_, a_}));
  EXPECT_EQ(transport_.pushes[0].request.deadline, In(absl::Milliseconds(500)));
  Advance(absl::Milliseconds(500));
  EndPush(0, absl::DeadlineExceededError("no room by then"));
  ASSERT_EQ(transport_.pushes.size(), 2u);
  EndPush(1, taken_);
  ASSERT_EQ(answer_.times, 1);
  ASSERT_TRUE(answer_.value.ok()) << answer_.value.status();
  EXPECT_EQ(answer_.value->holders, (std::vector<NodeId>{c_, a_}));
}

TEST_F(StoreActorTest, TooFewCopiesByTheDeadlineIsAnErrorAnsweredOnce) {
  Store(NumberOwnedBy({b_, c_}));
  EndPush(0, taken_);
  Advance(absl::Milliseconds(1100));
  ASSERT_EQ(answer_.times, 1);
  EXPECT_TRUE(absl::IsDeadlineExceeded(answer_.value.status()))
      << answer_.value.status();
  EndPush(1, taken_);
  EXPECT_EQ(answer_.times, 1);
}

TEST_F(StoreActorTest, CacheIsAnsweredByTheFirstCopy) {
  Store(NumberOwnedBy({a_, b_}), Durability::kCache);
  ASSERT_EQ(answer_.times, 1);
  ASSERT_TRUE(answer_.value.ok()) << answer_.value.status();
  EXPECT_EQ(answer_.value->holders[0], a_);
}

// A client leaves while a peer comes up: the view changes during the call.
TEST_F(ActorsTest, SessionsCloseWhileViewsChange) {
  NodeServices services(&system_, node_.get());
  Publish();
  std::atomic<bool> over{false};
  std::thread views([&] {
    while (!over) {
      node_->view.Set(std::make_shared<ClusterView>(*node_->view.Get()));
    }
  });
  for (uint64_t i = 0; i < 3000; ++i) services.CloseSession(SessionId(i));
  over = true;
  views.join();
  Run();
}

}  // namespace
}  // namespace kdn::actors
