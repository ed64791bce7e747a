#include "actors/node_services.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "actors/chunk_writer.h"
#include "actors/lease_actor.h"
#include "actors/lookup_actor.h"
#include "actors/node_calibration_run.h"
#include "actors/report_actor.h"
#include "actors/retrieve_actor.h"
#include "codec/format/object.h"
#include "delivery/store_plan.h"

namespace kdn::actors {
namespace {

absl::StatusOr<storage::ObjectInfo> VerifyArrived(
    const ChunkRef& ref, ShardId shard, absl::Span<const std::byte> object) {
  absl::StatusOr<codec::ObjectIndex> index =
      codec::ObjectIndex::Parse(object, object.size());
  if (!index.ok()) return index.status();
  if (index->key() != ref.key) {
    return absl::DataLossError(
        absl::StrCat("the object was announced as chunk ", ShortHex(ref.key),
                     " and is of chunk ", ShortHex(index->key())));
  }
  if (absl::Status status = codec::VerifyObject(*index, object); !status.ok()) {
    return status;
  }
  storage::ObjectInfo info;
  info.key = ref.key;
  info.shard = shard;
  info.ns = index->header().identity.ns.name();
  info.version = index->version();
  info.bytes = object.size();
  info.levels = index->header().levels.bits();
  // Objects of format version 2 do not state their depth.
  info.depth = index->header().depth.value_or(0);
  return info;
}

// Allocates a block that holds `pass` until the block itself is freed.
absl::StatusOr<std::shared_ptr<storage::ArenaBlock>> AllocateWith(
    transfer::AdmissionGate::Pass pass, storage::Arena& arena, size_t bytes) {
  absl::StatusOr<std::shared_ptr<storage::ArenaBlock>> block =
      arena.Allocate(bytes);
  if (!block.ok()) return block.status();
  using Both = std::pair<transfer::AdmissionGate::Pass,
                         std::shared_ptr<storage::ArenaBlock>>;
  auto both = std::make_shared<Both>(std::move(pass), *std::move(block));
  return std::shared_ptr<storage::ArenaBlock>(both, both->second.get());
}

}  // namespace

StorageActor NodeServices::StorageFor(const ChunkRef& ref) const {
  const std::shared_ptr<const ClusterView> view = node_->view.Get();
  return *view->StorageOf(node_->self(), view->ShardOf(ref));
}

void NodeServices::BeginStore(
    delivery::StoreRequest request,
    delivery::Done<absl::StatusOr<std::unique_ptr<delivery::ChunkWriter>>>
        done) {
  absl::StatusOr<codec::ObjectHeader> header = HeaderOf(request);
  if (!header.ok()) return done(header.status());
  const size_t bytes = codec::ObjectBytesMax(*header);
  const ChunkRef ref{KeyOf(request.identity, request.depth)};
  const std::shared_ptr<const ClusterView> view = node_->view.Get();
  const auto owners = view->OwnersOf(ref, view->walk_depth());
  const delivery::BuildPlace built =
      delivery::BuildPlaceOf(owners, node_->self(), view->copies());
  const codec::LosslessForm form =
      delivery::LosslessFormOf(request.durability, owners, node_->self());
  const absl::Time deadline = request.deadline;
  const SessionId session = request.session;
  const std::shared_ptr<Cancellation> cancellation = request.cancellation;
  auto begin =
      [system = system_, node = node_, built, form,
       request = std::move(request), done = std::move(done)](
          absl::StatusOr<std::shared_ptr<storage::ArenaBlock>> block) mutable {
        if (!block.ok()) return done(block.status());
        // Create computes sines and cosines for all positions. This thread is a
        // storage actor's, or the thread that has given memory back.
        node->pool.Post(
            {WorkClass::kWrite, node->pool.NextRequester(), 0},
            [system, node, built, form, request = std::move(request),
             done = std::move(done), block = *std::move(block)]() mutable {
              done(NodeChunkWriter::Create(system, node, std::move(request),
                                           std::move(block), built, form));
            });
      };
  if (built == delivery::BuildPlace::kPassing) {
    const AdmissionId waiting = node_->passing->Request(
        {.amount = bytes,
         .work_class = WorkClass::kWrite,
         .requester = RequesterId(session.value()),
         .deadline = deadline},
        [scratch = node_->passing->arena, bytes, begin = std::move(begin)](
            absl::StatusOr<transfer::AdmissionGate::Pass> pass) mutable {
          if (!pass.ok()) return begin(pass.status());
          begin(AllocateWith(*std::move(pass), *scratch, bytes));
        });
    return cancellation->OnCancel([node = node_, waiting] {
      node->passing->gate.Refuse(waiting,
                                 absl::CancelledError("the engine gave up"));
    });
  }
  caf::anon_send(StorageFor(ref),
                 ReserveCall{bytes, deadline,
                             Reply<std::shared_ptr<storage::ArenaBlock>>::To(
                                 std::move(begin)),
                             cancellation});
}

void NodeServices::Lookup(
    std::vector<ChunkRef> chunks, Namespace ns, absl::Time deadline,
    delivery::Done<absl::StatusOr<std::vector<LookupResult>>> done) {
  system_->spawn(
      MakeLookupActor, node_,
      LookupJob{std::move(chunks), ns.name(), deadline,
                Reply<std::vector<LookupResult>>::To(std::move(done))});
}

void NodeServices::Retrieve(delivery::RetrieveRequest request, OnLayer on_layer,
                            delivery::Done<std::vector<ChunkOutcome>> done) {
  node_->meters().Add("retrieves");
  if (request.chunks.empty()) return done({});
  system_->spawn(
      MakeRetrieveActor, node_,
      RetrieveJob{std::make_shared<transfer::RetrieveContext>(
                      std::move(request), std::move(on_layer),
                      transfer::DecodeMeans{&node_->calibrations,
                                            &node_->decoding, node_->clock}),
                  std::make_shared<delivery::Done<std::vector<ChunkOutcome>>>(
                      std::move(done)),
                  nullptr});
}

void NodeServices::Lease(LeaseOp op, std::vector<ChunkRef> chunks,
                         const Namespace& ns, SessionId session,
                         absl::Time expires, absl::Time deadline,
                         delivery::Done<std::vector<absl::Status>> done) {
  const size_t count = chunks.size();
  auto reply = Reply<std::vector<absl::Status>>::To(
      [count, done = std::move(done)](
          absl::StatusOr<std::vector<absl::Status>> statuses) mutable {
        done(statuses.ok()
                 ? *std::move(statuses)
                 : std::vector<absl::Status>(count, statuses.status()));
      });
  system_->spawn(MakeLeaseActor, node_,
                 LeaseJob{op, std::move(chunks), ns.name(), session, expires,
                          deadline, std::move(reply)});
}

void NodeServices::Pin(std::vector<ChunkRef> chunks, Namespace ns,
                       SessionId session, absl::Time expires,
                       absl::Time deadline,
                       delivery::Done<std::vector<absl::Status>> done) {
  Lease(LeaseOp::kPin, std::move(chunks), ns, session, expires, deadline,
        std::move(done));
}

void NodeServices::Unpin(std::vector<ChunkRef> chunks, Namespace ns,
                         SessionId session, absl::Time deadline,
                         delivery::Done<std::vector<absl::Status>> done) {
  Lease(LeaseOp::kUnpin, std::move(chunks), ns, session, absl::InfinitePast(),
        deadline, std::move(done));
}

void NodeServices::Remove(std::vector<ChunkRef> chunks, Namespace ns,
                          SessionId session, absl::Time deadline,
                          delivery::Done<std::vector<absl::Status>> done) {
  Lease(LeaseOp::kRemove, std::move(chunks), ns, session, absl::InfinitePast(),
        deadline, std::move(done));
}

void NodeServices::StoreCalibration(
    std::vector<std::byte> bytes, absl::Time deadline,
    delivery::Done<absl::StatusOr<CalibrationReceipt>> done) {
  caf::anon_send(node_->calibration_actor,
                 StoreCalibrationCall{
                     std::make_shared<std::vector<std::byte>>(std::move(bytes)),
                     deadline, Reply<CalibrationReceipt>::To(std::move(done))});
}

void NodeServices::Calibrations(
    delivery::Done<absl::StatusOr<std::vector<CalibrationEntry>>> done) {
  caf::anon_send(node_->calibration_actor,
                 ListCalibrationsCall{Reply<std::vector<CalibrationEntry>>::To(
                     std::move(done))});
}

absl::StatusOr<std::unique_ptr<delivery::CalibrationRun>>
NodeServices::BeginCalibration(const ModelSpec& model) {
  return NodeCalibrationRun::Begin(node_, this, model);
}

void NodeServices::ReadCalibration(
    const codec::CalibrationId& id,
    delivery::Done<absl::StatusOr<FileBytes>> done) {
  node_->pool.Post({WorkClass::kBackground, node_->pool.NextRequester(), 0},
                   [node = node_, id, done = std::move(done)]() mutable {
                     done(node->shelf.BytesOf(id));
                   });
}

SessionId NodeServices::OpenSession() {
  // The id is a hash of node, time and count. A node that restarts must not
  // reuse an id, because its peers may still keep leases of the old session.
  DigestBuilder builder("kdn-session-1");
  builder.Add(std::string_view(node_->self().name()))
      .Add(static_cast<uint64_t>(absl::ToUnixNanos(node_->clock->WallNow())))
      .Add(++sessions_);
  uint64_t value;
  std::memcpy(&value, builder.Finish().data(), sizeof(value));
  return SessionId(value);
}

void NodeServices::CloseSession(SessionId session) {
  // A local variable, because the placement actor may replace the view during
  // the loop.
  const std::shared_ptr<const ClusterView> view = node_->view.Get();
  for (const auto& [id, peer] : view->live) {
    for (const StorageActor& storage : peer.storage) {
      caf::anon_send(storage, ReleaseAtom::value, session.value());
    }
  }
}

void NodeServices::Status(absl::Time deadline,
                          delivery::Done<std::vector<NodeStatus>> done) {
  auto reply = Reply<std::vector<NodeStatus>>::To(
      [done = std::move(done)](
          absl::StatusOr<std::vector<NodeStatus>> all) mutable {
        done(all.ok() ? *std::move(all) : std::vector<NodeStatus>());
      });
  system_->spawn(MakeReportActor, node_, ReportJob{deadline, std::move(reply)});
}

void NodeServices::ReadLocal(const ChunkRef& ref, const Namespace& ns,
                             absl::Time deadline,
                             delivery::Done<absl::StatusOr<Held>> done) {
  caf::anon_send(StorageFor(ref), ReadCall{ref.key, ns.name(), deadline,
                                           Reply<Held>::To(std::move(done))});
}

void NodeServices::ReserveLocal(
    const ChunkRef& ref, size_t bytes, absl::Time deadline,
    delivery::Done<absl::StatusOr<std::shared_ptr<storage::ArenaBlock>>> done) {
  caf::anon_send(StorageFor(ref),
                 ReserveCall{bytes, deadline,
                             Reply<std::shared_ptr<storage::ArenaBlock>>::To(
                                 std::move(done))});
}

void NodeServices::CommitLocal(
    const ChunkRef& ref, std::shared_ptr<storage::ArenaBlock> block,
    Durability durability, absl::Time expires, absl::Time deadline,
    delivery::Done<absl::StatusOr<delivery::PushReceipt>> done) {
  auto reply = Reply<delivery::PushReceipt>::To(std::move(done));
  const ShardId shard = placement::ShardOf(ref.key);
  node_->pool.Post(
      {WorkClass::kWrite, node_->pool.NextRequester(), 0},
      [ref, shard, durability, expires, deadline, block = std::move(block),
       storage = StorageFor(ref), reply = std::move(reply)] {
        absl::StatusOr<storage::ObjectInfo> info =
            VerifyArrived(ref, shard, block->bytes());
        if (!info.ok()) return reply(info.status());
        caf::anon_send(storage, CommitCall{*std::move(info), block, durability,
                                           expires, deadline, reply});
      });
}

}  // namespace kdn::actors
