#include "rpc/gateway/session.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kv/chunk_key.h"
#include "kv/log.h"
#include "rpc/api.h"
#include "rpc/gateway/knowledge.h"
#include "rpc/gateway/wire.h"
#include "rpc/wire.h"

namespace kdn::rpc {
namespace {

constexpr uint64_t kPageBytes = 4096;
// Each region is a file descriptor of the node.
constexpr int kRegionsPerSessionMax = 64;
constexpr int kModelsPerSessionMax = 256;
// Golden vectors of a hello: far more than any version of a client has.
constexpr unsigned kGoldenVectorsMax = 64;

absl::Status CheckVersion(uint32_t client) {
  if (client >= kProtocolVersion) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the client speaks protocol version ", client,
                   ", this node ", kProtocolVersion, " and newer"));
}

// OK when every golden vector that both sides know is equal, and "first-chunk"
// is among them.
absl::Status CheckGolden(capnp::List<wire::GoldenVector>::Reader theirs) {
  if (theirs.size() > kGoldenVectorsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat(theirs.size(), " golden vectors, expected at most ",
                     kGoldenVectorsMax));
  }
  bool first_chunk_seen = false;
  const std::vector<GoldenVector> ours = GoldenVectors();
  for (const auto vector : theirs) {
    const std::string label = NameFromWire(vector.getLabel());
    const auto known =
        std::find_if(ours.begin(), ours.end(),
                     [&](const GoldenVector& v) { return v.label == label; });
    if (known == ours.end()) continue;
    const auto key = DigestFromWire<ChunkKey>(vector.getKey(), "golden key");
    if (!key.ok()) return key.status();
    if (*key != known->key) {
      return absl::FailedPreconditionError(absl::StrCat(
          "client hashes differently: golden vector '", label, "' is ",
          ShortHex(*key), ", here it is ", ShortHex(known->key)));
    }
    first_chunk_seen |= label == "first-chunk";
  }
  if (first_chunk_seen) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "hello needs the golden vector 'first-chunk'");
}

void FillGolden(wire::Kdn::HelloResults::Builder results) {
  const std::vector<GoldenVector> ours = GoldenVectors();
  auto list = results.initGoldenVectors(static_cast<unsigned>(ours.size()));
  for (unsigned i = 0; i < ours.size(); ++i) {
    list[i].setLabel(ours[i].label);
    list[i].setKey(ToWire(ours[i].key));
  }
}

std::shared_ptr<SessionState> MakeSession(
    const std::shared_ptr<GatewayState>& gateway,
    const std::shared_ptr<EngineLink>& link, SessionPlaces places) {
  const Gateway::Options& options = gateway->options;
  auto state = std::make_shared<SessionState>();
  state->gateway = gateway;
  state->link = link;
  state->id = gateway->node->OpenSession();
  state->places = std::move(places);
  state->regions = AdmissionGate::Create(kRegionsPerSessionMax);
  state->memory = AdmissionGate::Create(options.session_memory_bytes_max);
  state->models = AdmissionGate::Create(kModelsPerSessionMax);
  state->stores = AdmissionGate::Create(options.session_stores_max);
  state->store_bytes = AdmissionGate::Create(options.session_store_bytes_max);
  state->calibrations = AdmissionGate::Create(1);
  state->small_calls =
      AdmissionGate::Create(KnowledgeServer::SmallCallsOfSession());
  state->call_memory = ByteBudget::Create(
      *gateway->loop, KnowledgeServer::CallMemoryOfSession(options));
  return state;
}

}  // namespace

absl::Status KdnServer::Judge(wire::Kdn::HelloParams::Reader params) const {
  if (absl::Status s = CheckVersion(params.getProtocolVersion()); !s.ok()) {
    return s;
  }
  const std::shared_ptr<SessionState> last = link_->session.lock();
  if (last != nullptr && !last->closed) {
    return absl::FailedPreconditionError(
        "this connection has a session: connect again for another one");
  }
  return CheckGolden(params.getGoldenVectors());
}

bool KdnServer::MakeRoom(bool of_class) {
  std::optional<ConnectionTable::Class> only;
  if (of_class) only = ConnectionTable::ClassOf(link_->local);
  const auto idle = gateway_->connections->GiveUpIdle(only);
  if (idle) gateway_->hang_up(*idle);
  return idle.has_value();
}

AdmissionGate& KdnServer::SessionsOfClass() const {
  return link_->local ? *gateway_->local_sessions : *gateway_->remote_sessions;
}

SessionPlaces KdnServer::TakePlaces() const {
  return {.in_connection = link_->sessions->TryTake(1, WorkClass::kRead),
          .in_class = SessionsOfClass().TryTake(1, WorkClass::kRead),
          .in_gateway = gateway_->sessions->TryTake(1, WorkClass::kRead)};
}

absl::Status KdnServer::NoPlace() const {
  return absl::ResourceExhaustedError(absl::StrCat(
      "all sessions of this gateway are taken: it has ",
      gateway_->sessions->budget(), ", at most ", SessionsOfClass().budget(),
      link_->local ? " for the Unix socket" : " for TCP",
      ": close some, or connect to another node"));
}

kj::Promise<void> KdnServer::hello(HelloContext context) {
  const auto params = context.getParams();
  absl::Status status = Judge(params);
  SessionPlaces places;
  if (status.ok()) {
    places = TakePlaces();
    if (places.in_connection && !places.complete() &&
        MakeRoom(/*of_class=*/!places.in_class)) {
      // The session ends when the loop has destroyed its connection.
      return gateway_->loop->At(EventLoop::Now()).then([this, context] {
        return hello(context);
      });
    }
    if (!places.complete()) status = NoPlace();
  }
  auto results = context.getResults();
  FillGolden(results);
  results.setProtocolVersion(kProtocolVersion);
  ToWire(status, results.initStatus());
  if (!status.ok()) {
    gateway_->options.meters->Add("engines_refused");
    LogWarning("gateway.hello",
               absl::StrCat("client '", NameFromWire(params.getClientName()),
                            "' was refused: ", status.message()));
    return kj::READY_NOW;
  }
  link_->greeted = true;
  gateway_->connections->SetUse(link_->id, ConnectionTable::Use::kIdle);
  FillNodeInfo(*gateway_, link_->local, results.initNode());
  auto session = MakeSession(gateway_, link_, std::move(places));
  link_->session = session;
  results.setSession(kj::heap<SessionServer>(std::move(session)));
  return kj::READY_NOW;
}

SessionServer::~SessionServer() noexcept(false) {
  state_->closed = true;
  state_->node().CloseSession(state_->id);
}

kj::Promise<void> SessionServer::open(OpenContext context) {
  const auto params = context.getParams();
  auto results = context.getResults();
  auto refuse = [&](const absl::Status& status) {
    ToWire(status, results.initStatus());
    return kj::READY_NOW;
  };
  absl::StatusOr<Namespace> ns =
      Namespace::Parse(NameFromWire(params.getNamespace()));
  if (!ns.ok()) return refuse(ns.status());
  absl::StatusOr<ModelSpec> model = FromWire(params.getModel());
  if (!model.ok()) return refuse(model.status());
  const auto claimed = DigestFromWire<ModelFingerprint>(params.getFingerprint(),
                                                        "model fingerprint");
  if (!claimed.ok()) return refuse(claimed.status());
  const ModelFingerprint ours = FingerprintOf(*model);
  results.setFingerprint(ToWire(ours));
  if (ours != *claimed) {
    return refuse(absl::FailedPreconditionError(absl::StrCat(
        "stale fingerprint of model '", model->name, "': the client says ",
        ShortHex(*claimed), ", this node computes ", ShortHex(ours))));
  }
  AdmissionGate::Pass slot = state_->models->TryTake(1, WorkClass::kRead);
  if (!slot) {
    return refuse(absl::ResourceExhaustedError(
        absl::StrCat("the session has ", kModelsPerSessionMax,
                     " (tenant, model) pairs open")));
  }
  state_->gateway->SetInUse(*state_->link);
  results.setKnowledge(kj::heap<KnowledgeServer>(
      state_, *std::move(ns),
      std::make_shared<const ModelSpec>(*std::move(model)), ours,
      std::move(slot)));
  return kj::READY_NOW;
}

absl::StatusOr<std::shared_ptr<SharedRegion>> SessionServer::MakeRegion(
    uint64_t bytes) {
  if (!state_->link->local) {
    return absl::FailedPreconditionError(
        "shared memory needs a Unix socket: this session came over TCP");
  }
  if (bytes == 0) {
    return absl::InvalidArgumentError("a region needs at least 1 byte");
  }
  const uint64_t padding = (kPageBytes - bytes % kPageBytes) % kPageBytes;
  auto region = std::make_shared<SharedRegion>();
  AdmissionGate::Pass in_session, in_gateway;
  if (bytes <= state_->memory->budget()) {
    in_session = state_->memory->TryTake(bytes + padding, WorkClass::kRead);
    in_gateway =
        state_->gateway->memory->TryTake(bytes + padding, WorkClass::kRead);
  }
  if (!in_session || !in_gateway) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a region of ", bytes, " bytes: the session uses ",
                     state_->memory->used(), " of ", state_->memory->budget(),
                     ", the gateway ", state_->gateway->memory->used(), " of ",
                     state_->gateway->memory->budget()));
  }
  region->descriptor = state_->gateway->regions->TryTake(1, WorkClass::kRead);
  if (!region->descriptor) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "all ", state_->gateway->regions->budget(),
        " regions of this gateway are open: open fewer, larger regions"));
  }
  absl::StatusOr<SharedMemory> memory =
      SharedMemory::Create("kdn-engine", bytes);
  if (!memory.ok()) return memory.status();
  region->memory = *std::move(memory);
  region->in_session = std::move(in_session);
  region->in_gateway = std::move(in_gateway);
  return region;
}

kj::Promise<void> SessionServer::openMemory(OpenMemoryContext context) {
  auto results = context.getResults();
  absl::StatusOr<std::shared_ptr<SharedRegion>> region =
      MakeRegion(context.getParams().getBytes());
  AdmissionGate::Pass slot = state_->regions->TryTake(1, WorkClass::kRead);
  if (region.ok() && !slot) {
    region = absl::ResourceExhaustedError(absl::StrCat(
        "the session has ", kRegionsPerSessionMax, " regions open"));
  }
  ToWire(region.status(), results.initStatus());
  if (!region.ok()) return kj::READY_NOW;
  state_->gateway->SetInUse(*state_->link);
  results.setMemory(state_->shared_memories.add(kj::heap<SharedMemoryServer>(
      *std::move(region), state_->gateway->desk, std::move(slot))));
  return kj::READY_NOW;
}

kj::Promise<void> SharedMemoryServer::ticket(TicketContext context) {
  desk_->Withdraw(ticket_);
  ticket_ = desk_->Issue(region_);
  auto results = context.getResults();
  ToWire(absl::OkStatus(), results.initStatus());
  results.setSocket(desk_->path());
  results.setTicket(kj::arrayPtr(
      reinterpret_cast<const kj::byte*>(ticket_.data()), ticket_.size()));
  return kj::READY_NOW;
}

kj::Promise<void> SessionServer::info(InfoContext context) {
  auto results = context.getResults();
  ToWire(absl::OkStatus(), results.initStatus());
  FillNodeInfo(*state_->gateway, state_->link->local, results.initNode());
  results.setSession(state_->id.value());
  return kj::READY_NOW;
}

kj::Promise<void> SessionServer::status(StatusContext context) {
  context.allowCancellation();
  const auto timeout = TimeoutFromWire(context.getParams().getDeadlineMs());
  if (!timeout.ok()) {
    ToWire(timeout.status(), context.getResults().initStatus());
    return kj::READY_NOW;
  }
  const CallDeadline deadline = CallDeadline::After(*timeout);
  using Nodes = std::vector<NodeStatus>;
  auto expected = state_->loop().Expect<Nodes>();
  state_->node().Status(deadline.of_node, std::move(expected.done));
  return ByDeadline(state_->loop(), AnswerOrStatus(kj::mv(expected.promise)),
                    deadline.at, "status of the cluster")
      .then([this, context](absl::StatusOr<Nodes> nodes) mutable {
        auto results = context.getResults();
        ToWire(nodes.status(), results.initStatus());
        if (!nodes.ok()) return;
        results.setSelf(state_->node().self().name());
        auto list = results.initNodes(static_cast<unsigned>(nodes->size()));
        for (unsigned i = 0; i < nodes->size(); ++i) {
          FillNodeStatus((*nodes)[i], list[i]);
        }
      });
}

absl::StatusOr<CalibrationUploadServer::Budget> SessionServer::BudgetFor(
    uint64_t bytes) const {
  AdmissionGate& all = *state_->gateway->calibration_bytes;
  if (bytes == 0 || bytes > all.budget()) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "a calibration of ", bytes, " bytes, expected 1 to ", all.budget()));
  }
  CalibrationUploadServer::Budget budget{
      state_->calibrations->TryTake(1, WorkClass::kRead), nullptr};
  if (!budget.in_session) {
    return absl::ResourceExhaustedError(
        "the session stores another calibration: wait for its commit");
  }
  budget.in_gateway = all.TryTake(bytes, WorkClass::kRead);
  if (!budget.in_gateway) {
    return absl::ResourceExhaustedError(
        absl::StrCat("calibrations of ", all.used(),
                     " bytes are on their way to this "
                     "gateway, of at most ",
                     all.budget(), ": try again later"));
  }
  return budget;
}

kj::Promise<void> SessionServer::storeCalibration(
    StoreCalibrationContext context) {
  const auto params = context.getParams();
  auto results = context.getResults();
  const auto timeout = TimeoutFromWire(params.getDeadlineMs());
  if (!timeout.ok()) {
    ToWire(timeout.status(), results.initStatus());
    return kj::READY_NOW;
  }
  absl::StatusOr<CalibrationUploadServer::Budget> budget =
      BudgetFor(params.getBytes());
  ToWire(budget.status(), results.initStatus());
  if (!budget.ok()) return kj::READY_NOW;
  state_->gateway->SetInUse(*state_->link);
  results.setUpload(kj::heap<CalibrationUploadServer>(
      state_, params.getBytes(), CallDeadline::After(*timeout),
      *std::move(budget)));
  return kj::READY_NOW;
}

kj::Promise<void> SessionServer::calibrations(CalibrationsContext context) {
  context.allowCancellation();
  const auto params = context.getParams();
  std::optional<ModelFingerprint> model;
  absl::Status status;
  if (params.getModel().size() > 0) {
    const auto asked = DigestFromWire<ModelFingerprint>(params.getModel(),
                                                        "model fingerprint");
    status = asked.status();
    if (asked.ok()) model = *asked;
  }
  const auto timeout = TimeoutFromWire(params.getDeadlineMs());
  if (status.ok()) status = timeout.status();
  if (!status.ok()) {
    ToWire(status, context.getResults().initStatus());
    return kj::READY_NOW;
  }
  using Entries = absl::StatusOr<std::vector<CalibrationEntry>>;
  auto expected = state_->loop().Expect<Entries>();
  state_->node().Calibrations(std::move(expected.done));
  return ByDeadline(state_->loop(), kj::mv(expected.promise),
                    CallDeadline::After(*timeout).at, "listing calibrations")
      .then([context, model](Entries all) mutable {
        auto results = context.getResults();
        ToWire(all.status(), results.initStatus());
        if (!all.ok()) return;
        std::erase_if(*all, [&](const CalibrationEntry& entry) {
          return model && entry.model != *model;
        });
        auto list =
            results.initCalibrations(static_cast<unsigned>(all->size()));
        for (unsigned i = 0; i < all->size(); ++i) {
          FillCalibration((*all)[i], list[i]);
        }
      });
}

}  // namespace kdn::rpc
