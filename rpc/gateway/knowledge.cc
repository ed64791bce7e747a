#include "rpc/gateway/knowledge.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "kv/clock.h"
#include "kv/log.h"
#include "rpc/gateway/calibration_run.h"
#include "rpc/gateway/store_stream.h"
#include "rpc/gateway/wire.h"
#include "rpc/wire.h"

namespace kdn::rpc {
namespace {

// About what a chunk of a call takes in this process: its key here and in the
// messages to its owners, its result, and the answer. A lookup of 16,384 chunks
// took 7 MB.
constexpr uint64_t kBytesPerChunk = 512;
// A position is copied once for the node, and once for a peer.
constexpr uint64_t kBytesPerPosition = 8;
// Calls of at most so much take their room from the session's small part first,
// so that they do not wait for large calls of other sessions.
constexpr uint64_t kSmallCallBytes = 64u << 10;
constexpr uint64_t kSmallCallsBytes = 256u << 10;

template <typename Context>
kj::Promise<void> Refuse(Context context, const absl::Status& status) {
  ToWire(status, context.getResults().initStatus());
  return kj::READY_NOW;
}

void LogFailed(const Retrieval::Outcomes& outcomes) {
  const auto failed = [](const ChunkOutcome& outcome) {
    return outcome.kind == OutcomeKind::kFailed;
  };
  const auto first = std::find_if(outcomes.begin(), outcomes.end(), failed);
  if (first == outcomes.end()) return;
  LogWarning("gateway.retrieve",
             absl::StrCat(std::count_if(first, outcomes.end(), failed), " of ",
                          outcomes.size(), " chunks failed, the first one: ",
                          first->why.ToString()));
}

}  // namespace

absl::Status KnowledgeServer::CheckChunkCount(uint64_t chunks) const {
  const int max = session_->gateway->options.chunks_per_call_max;
  if (chunks <= static_cast<uint64_t>(max)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(chunks, " chunks in one call, expected at most ", max));
}

kj::Promise<absl::StatusOr<KnowledgeServer::Room>> KnowledgeServer::Reserve(
    uint64_t chunks, uint64_t positions, kj::TimePoint deadline) const {
  using Result = absl::StatusOr<Room>;
  using Pass = absl::StatusOr<AdmissionGate::Pass>;
  const uint64_t bytes =
      chunks * kBytesPerChunk + positions * kBytesPerPosition;
  if (bytes <= kSmallCallBytes) {
    AdmissionGate::Pass small =
        session_->small_calls->TryTake(bytes, WorkClass::kRead);
    if (small) return Result(Room{std::move(small), nullptr});
  }
  const RequesterId requester(session_->id.value());
  auto room =
      session_->call_memory->Acquire(bytes, requester)
          .then([bytes, requester, all = session_->gateway->call_memory](
                    Pass share) -> kj::Promise<Result> {
            if (!share.ok()) return Result(share.status());
            return all->Acquire(bytes, requester)
                .then([share = *std::move(share)](Pass pass) mutable -> Result {
                  if (!pass.ok()) return pass.status();
                  return Room{std::move(share), *std::move(pass)};
                });
          });
  return ByDeadline<Result>(session_->loop(), kj::mv(room), deadline,
                            "waiting for memory of the gateway for a call");
}

uint64_t KnowledgeServer::CallMemoryOfSession(const Gateway::Options& options) {
  const uint64_t largest =
      static_cast<uint64_t>(options.chunks_per_call_max) * kBytesPerChunk +
      static_cast<uint64_t>(options.positions_per_call_max) * kBytesPerPosition;
  const uint64_t all = options.call_memory_max;
  return std::max(all / 4, std::min(all, largest));
}

uint64_t KnowledgeServer::SmallCallsOfSession() { return kSmallCallsBytes; }

template <typename Context>
kj::Promise<absl::StatusOr<KnowledgeServer::Asked>> KnowledgeServer::Parse(
    Context context) const {
  using Result = absl::StatusOr<Asked>;
  const auto params = context.getParams();
  absl::Status status = session_->CheckOpen();
  const auto timeout = TimeoutFromWire(params.getDeadlineMs());
  if (status.ok()) status = timeout.status();
  const uint64_t count = params.getChunks().size();
  if (status.ok()) status = CheckChunkCount(count);
  if (!status.ok()) return Result(status);
  const CallDeadline deadline = CallDeadline::After(*timeout);
  return Reserve(count, 0, deadline.at)
      .then([context, count,
             deadline](absl::StatusOr<Room> memory) mutable -> Result {
        if (!memory.ok()) return memory.status();
        auto chunks = FromWire(context.getParams().getChunks(), count);
        context.releaseParams();
        if (!chunks.ok()) return chunks.status();
        return Asked{*std::move(chunks), deadline, *std::move(memory)};
      });
}

kj::Promise<void> KnowledgeServer::lookup(LookupContext context) {
  context.allowCancellation();
  return Parse(context).then(
      [this, context](absl::StatusOr<Asked> asked) mutable {
        if (!asked.ok()) return Refuse(context, asked.status());
        return Lookup(context, *std::move(asked));
      });
}

kj::Promise<void> KnowledgeServer::Lookup(LookupContext context, Asked asked) {
  using Results = absl::StatusOr<std::vector<LookupResult>>;
  auto expected = session_->loop().Expect<Results>();
  session_->node().Lookup(std::move(asked.chunks), ns_, asked.deadline.of_node,
                          std::move(expected.done));
  return ByDeadline(session_->loop(), kj::mv(expected.promise),
                    asked.deadline.at, "looking chunks up")
      .then([context, memory = std::move(asked.memory),
             meters = session_->gateway->options.meters,
             begun = asked.deadline.begun](Results found) mutable {
        auto results = context.getResults();
        ToWire(found.status(), results.initStatus());
        if (!found.ok()) return;
        meters->Record("lookup_us", SteadyNow() - begun);
        auto list = results.initResults(static_cast<unsigned>(found->size()));
        for (unsigned i = 0; i < found->size(); ++i) {
          FillLookupResult((*found)[i], list[i]);
        }
      });
}

template <typename Context, typename Ask>
kj::Promise<void> KnowledgeServer::AskForStatuses(Context context,
                                                  const char* what, Ask ask) {
  context.allowCancellation();
  return Parse(context).then([this, context, what, ask = std::move(ask)](
                                 absl::StatusOr<Asked> asked) mutable {
    if (!asked.ok()) return Refuse(context, asked.status());
    return AnswerStatuses(context, what, *std::move(asked), ask);
  });
}

template <typename Context, typename Ask>
kj::Promise<void> KnowledgeServer::AnswerStatuses(Context context,
                                                  const char* what, Asked asked,
                                                  Ask& ask) {
  const kj::TimePoint at = asked.deadline.at;
  Room memory = asked.memory;
  auto expected = session_->loop().template Expect<Statuses>();
  ask(std::move(asked), std::move(expected.done));
  return ByDeadline(session_->loop(), AnswerOrStatus(kj::mv(expected.promise)),
                    at, what)
      .then([context, memory = std::move(memory)](
                absl::StatusOr<Statuses> answer) mutable {
        auto results = context.getResults();
        ToWire(answer.status(), results.initStatus());
        if (!answer.ok()) return;
        auto list = results.initStatuses(static_cast<unsigned>(answer->size()));
        for (unsigned i = 0; i < answer->size(); ++i) {
          ToWire((*answer)[i], list[i]);
        }
      });
}

KnowledgeServer::StatusesDone KnowledgeServer::ReleasedIfLate(
    StatusesDone done) const {
  return [weak = std::weak_ptr<SessionState>(session_), id = session_->id,
          node = &session_->node(), inbox = session_->loop().inbox(),
          done = std::move(done)](Statuses statuses) mutable {
    // The session's state is used on the loop thread only.
    inbox->Post([weak, id, node] {
      const std::shared_ptr<SessionState> session = weak.lock();
      if (session == nullptr || session->closed) node->CloseSession(id);
    });
    done(std::move(statuses));
  };
}

kj::Promise<void> KnowledgeServer::pin(PinContext context) {
  const auto ttl =
      TtlFromWire(context.getParams().getTtlMs(), /*zero_allowed=*/false);
  if (!ttl.ok()) return Refuse(context, ttl.status());
  return AskForStatuses(context, "pinning chunks",
                        [this, ttl = *ttl](Asked asked, StatusesDone done) {
                          session_->node().Pin(std::move(asked.chunks), ns_,
                                               session_->id, SteadyNow() + ttl,
                                               asked.deadline.of_node,
                                               ReleasedIfLate(std::move(done)));
                        });
}

kj::Promise<void> KnowledgeServer::unpin(UnpinContext context) {
  return AskForStatuses(
      context, "unpinning chunks", [this](Asked asked, StatusesDone done) {
        session_->node().Unpin(std::move(asked.chunks), ns_, session_->id,
                               asked.deadline.of_node, std::move(done));
      });
}

kj::Promise<void> KnowledgeServer::remove(RemoveContext context) {
  return AskForStatuses(
      context, "removing chunks", [this](Asked asked, StatusesDone done) {
        session_->node().Remove(std::move(asked.chunks), ns_, session_->id,
                                asked.deadline.of_node, std::move(done));
      });
}

kj::Promise<absl::StatusOr<std::shared_ptr<SharedRegion>>>
KnowledgeServer::RegionOf(wire::SharedMemory::Client memory,
                          kj::TimePoint deadline) const {
  using Region = absl::StatusOr<std::shared_ptr<SharedRegion>>;
  if (!session_->link->local) {
    return Region(absl::FailedPreconditionError(
        "shared memory needs a Unix socket: this session came over TCP"));
  }
  auto held = kj::heap<wire::SharedMemory::Client>(kj::mv(memory));
  auto found = session_->shared_memories.getLocalServer(*held).then(
      [](kj::Maybe<wire::SharedMemory::Server&> server) -> Region {
        KJ_IF_MAYBE (region, server) {
          return kj::downcast<SharedMemoryServer>(*region).region();
        }
        return absl::InvalidArgumentError(
            "the memory is not a region that this session opened");
      });
  // The capability may be a promise that the client never fulfils. Its message
  // takes memory until then.
  const absl::Duration most = session_->gateway->options.region_wait_max;
  return ByDeadline<Region>(session_->loop(), found.attach(kj::mv(held)),
                            std::min(deadline, EventLoop::In(most)),
                            "finding the shared memory of a call");
}

kj::Promise<void> KnowledgeServer::store(StoreContext context) {
  context.allowCancellation();
  const auto params = context.getParams();
  if (absl::Status open = session_->CheckOpen(); !open.ok()) {
    return Refuse(context, open);
  }
  const auto timeout = TimeoutFromWire(params.getDeadlineMs());
  if (!timeout.ok()) return Refuse(context, timeout.status());
  absl::StatusOr<delivery::StoreRequest> request =
      StoreFromWire(params.getRequest(), model_, fingerprint_, ns_);
  if (!request.ok()) return Refuse(context, request.status());
  const CallDeadline deadline = CallDeadline::After(*timeout);
  request->deadline = deadline.of_node;
  request->session = session_->id;
  kj::Maybe<wire::SharedMemory::Client> memory;
  if (params.getRequest().hasMemory()) {
    memory = params.getRequest().getMemory();
  }
  context.releaseParams();
  if (memory == nullptr) {
    return BeginStore(context, *std::move(request), deadline, nullptr);
  }
  return RegionOf(kj::mv(KJ_ASSERT_NONNULL(memory)), deadline.at)
      .then([this, context, deadline, request = *std::move(request)](
                absl::StatusOr<std::shared_ptr<SharedRegion>> region) mutable
            -> kj::Promise<void> {
        if (!region.ok()) return Refuse(context, region.status());
        return BeginStore(context, std::move(request), deadline,
                          *std::move(region));
      });
}

kj::Promise<void> KnowledgeServer::BeginStore(
    StoreContext context, delivery::StoreRequest request, CallDeadline deadline,
    std::shared_ptr<SharedRegion> region) {
  const KvShape shape =
      ShapeOf(*model_, static_cast<int>(request.identity.tokens.size()));
  auto slot = session_->stores->TryTake(1, WorkClass::kWrite);
  auto in_session =
      session_->store_bytes->TryTake(shape.bytes(), WorkClass::kWrite);
  auto in_gateway =
      session_->gateway->store_bytes->TryTake(shape.bytes(), WorkClass::kWrite);
  if (!slot || !in_session || !in_gateway) {
    return Refuse(
        context,
        absl::ResourceExhaustedError(absl::StrCat(
            "a store of ", shape.bytes(), " bytes: the session has ",
            session_->stores->used(), " of ", session_->stores->budget(),
            " stores open with ", session_->store_bytes->used(), " of ",
            session_->store_bytes->budget(), " bytes")));
  }
  StoreStreamServer::Budget budget{std::move(slot), std::move(in_session),
                                   std::move(in_gateway)};
  using Stream = absl::StatusOr<std::unique_ptr<delivery::ChunkWriter>>;
  auto expected = session_->loop().Expect<Stream>();
  const auto cancellation = request.cancellation;
  session_->node().BeginStore(std::move(request), std::move(expected.done));
  // Dropped unanswered when the engine cancels the call or hangs up.
  auto begun = expected.promise.attach(
      kj::defer([cancellation] { cancellation->Cancel(); }));
  return ByDeadline(session_->loop(), kj::mv(begun), deadline.at,
                    "beginning a store")
      .then([this, context, shape, deadline, region = std::move(region),
             budget = std::move(budget)](Stream stream) mutable {
        auto results = context.getResults();
        ToWire(stream.status(), results.initStatus());
        if (!stream.ok()) return;
        results.setStream(kj::heap<StoreStreamServer>(
            session_, *std::move(stream), shape, deadline, std::move(region),
            std::move(budget)));
      });
}

absl::StatusOr<RetrieveCall> KnowledgeServer::ParseRetrieve(
    wire::RetrieveRequest::Reader request,
    std::shared_ptr<SharedRegion> region) const {
  const auto chunks = request.getChunks();
  const auto slice = FromWire(request.getSlice(), *model_);
  if (!slice.ok()) return slice.status();
  const auto accept = LevelsFromWire(request.getAccept(), LevelSet::All());
  if (!accept.ok()) return accept.status();
  RetrieveCall call{model_, ns_, {}, *slice, *accept, std::move(region)};
  const double prefill = request.getPrefillTokensPerSecond();
  if (!std::isfinite(prefill) || prefill < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "prefillTokensPerSecond ", prefill, ", expected 0 or more"));
  }
  call.prefill_tokens_per_second = prefill;
  if (request.getLeadingChunks()) call.reuse = delivery::Reuse::kLeadingChunks;
  if (request.getDestination().isInline()) {
    call.inline_layout = request.getDestination().getInline();
    call.message_bytes = request.getMessageBytes();
  }
  for (const auto chunk : chunks) {
    absl::StatusOr<ChunkRef> ref = FromWire(chunk.getRef());
    if (!ref.ok()) return ref.status();
    std::vector<int32_t> positions = FromWire(chunk.getPositions());
    if (absl::Status s = CheckPositions(positions); !s.ok()) return s;
    MutableKvView view;
    if (call.region != nullptr) {
      const KvShape shape{slice->layers(), slice->heads(),
                          static_cast<int>(positions.size()), model_->head_dim,
                          model_->dtype};
      const KvStrides strides = FromWire(chunk.getStrides());
      if (absl::Status s = ValidateInside(shape, strides, chunk.getOffset(),
                                          call.region->memory.size());
          !s.ok()) {
        return absl::InvalidArgumentError(
            absl::StrCat("chunk ", call.chunks.size(), ": ", s.message()));
      }
      view = MutableKvView(call.region->memory.data() + chunk.getOffset(),
                           shape, strides);
    }
    call.chunks.push_back(
        delivery::RetrieveChunk{*ref, std::move(positions), view});
  }
  return call;
}

absl::Status KnowledgeServer::CheckDestination(
    wire::RetrieveRequest::Destination::Reader destination, bool has_sink) {
  switch (destination.which()) {
    case wire::RetrieveRequest::Destination::INLINE:
      if (destination.getInline() > wire::Layout::HEAD_MAJOR) {
        return absl::UnimplementedError(
            "a layout that this node does not know");
      }
      if (!has_sink) {
        return absl::InvalidArgumentError("an inline retrieve needs a sink");
      }
      return absl::OkStatus();
    case wire::RetrieveRequest::Destination::MEMORY:
      return absl::OkStatus();
  }
  return absl::UnimplementedError("a destination that this node does not know");
}

kj::Promise<void> KnowledgeServer::retrieve(RetrieveContext context) {
  context.allowCancellation();
  const auto params = context.getParams();
  const auto timeout = TimeoutFromWire(params.getDeadlineMs());
  absl::Status status = session_->CheckOpen();
  if (status.ok()) status = timeout.status();
  const auto destination = params.getRequest().getDestination();
  if (status.ok()) status = CheckDestination(destination, params.hasSink());
  if (!status.ok()) return Refuse(context, status);
  const CallDeadline deadline = CallDeadline::After(*timeout);
  kj::Promise<absl::StatusOr<std::shared_ptr<SharedRegion>>> region =
      absl::StatusOr<std::shared_ptr<SharedRegion>>(nullptr);
  if (destination.isMemory()) {
    region = RegionOf(destination.getMemory(), deadline.at);
  }
  return region.then(
      [this, context,
       deadline](absl::StatusOr<std::shared_ptr<SharedRegion>> found) mutable
      -> kj::Promise<void> {
        if (!found.ok()) return Refuse(context, found.status());
        return RetrieveInto(context, *std::move(found), deadline);
      });
}

absl::StatusOr<uint64_t> KnowledgeServer::CountPositions(
    wire::RetrieveRequest::Reader request) const {
  const auto chunks = request.getChunks();
  if (absl::Status s = CheckChunkCount(chunks.size()); !s.ok()) return s;
  const int max = session_->gateway->options.positions_per_call_max;
  uint64_t positions = 0;
  for (const auto chunk : chunks) {
    const uint64_t count = chunk.getPositions().size();
    // ParseRetrieve refuses an empty list, after values of newer clients.
    if (absl::Status s = CheckPositionCount(std::max<uint64_t>(count, 1));
        !s.ok()) {
      return s;
    }
    positions += count;
  }
  if (positions > static_cast<uint64_t>(max)) {
    return absl::InvalidArgumentError(
        absl::StrCat(positions, " positions in one call, expected at most ",
                     max, ": ask for fewer chunks"));
  }
  return positions;
}

kj::Promise<void> KnowledgeServer::RetrieveInto(
    RetrieveContext context, std::shared_ptr<SharedRegion> region,
    CallDeadline deadline) {
  const auto request = context.getParams().getRequest();
  const absl::StatusOr<uint64_t> positions = CountPositions(request);
  if (!positions.ok()) return Refuse(context, positions.status());
  return Reserve(request.getChunks().size(), *positions, deadline.at)
      .then([this, context, deadline, region = std::move(region)](
                absl::StatusOr<Room> memory) mutable -> kj::Promise<void> {
        if (!memory.ok()) return Refuse(context, memory.status());
        const auto params = context.getParams();
        absl::StatusOr<RetrieveCall> call =
            ParseRetrieve(params.getRequest(), std::move(region));
        kj::Maybe<wire::LayerSink::Client> sink;
        if (params.hasSink()) sink = params.getSink();
        context.releaseParams();
        if (!call.ok()) return Refuse(context, call.status());
        return Deliver(context, *std::move(call), kj::mv(sink), deadline)
            .attach(kj::heap(*std::move(memory)));
      });
}

kj::Promise<void> KnowledgeServer::Deliver(
    RetrieveContext context, RetrieveCall call,
    kj::Maybe<wire::LayerSink::Client> sink, CallDeadline deadline) {
  auto retrieval = std::make_shared<Retrieval>(session_, std::move(call),
                                               kj::mv(sink), deadline);
  auto running = retrieval->Run();
  return running
      .then([context, meters = session_->gateway->options.meters,
             begun = deadline.begun](
                absl::StatusOr<Retrieval::Outcomes> answer) mutable {
        auto results = context.getResults();
        ToWire(answer.status(), results.initStatus());
        if (!answer.ok()) return;
        meters->Record("retrieve_us", SteadyNow() - begun);
        LogFailed(*answer);
        auto list = results.initOutcomes(static_cast<unsigned>(answer->size()));
        for (unsigned i = 0; i < answer->size(); ++i) {
          FillOutcome((*answer)[i], list[i]);
        }
      })
      .attach(kj::heap<std::shared_ptr<Retrieval>>(std::move(retrieval)));
}

kj::Promise<void> KnowledgeServer::calibrate(CalibrateContext context) {
  absl::Status status = session_->CheckOpen();
  const auto timeout = TimeoutFromWire(context.getParams().getDeadlineMs());
  if (status.ok()) status = timeout.status();
  if (!status.ok()) return Refuse(context, status);
  absl::StatusOr<std::unique_ptr<delivery::CalibrationRun>> run =
      session_->node().BeginCalibration(*model_);
  if (!run.ok()) return Refuse(context, run.status());
  auto results = context.getResults();
  ToWire(absl::OkStatus(), results.initStatus());
  results.setRun(kj::heap<CalibrationRunServer>(
      session_, model_, *std::move(run), CallDeadline::After(*timeout)));
  return kj::READY_NOW;
}

}  // namespace kdn::rpc
