#ifndef KDN_ACTORS_NODE_CONTEXT_H_
#define KDN_ACTORS_NODE_CONTEXT_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "actors/cluster_view.h"
#include "actors/messages.h"
#include "actors/node.h"
#include "codec/calibration/calibration.h"
#include "delivery/peer_transport.h"
#include "kv/clock.h"
#include "placement/introduction.h"
#include "storage/arena.h"
#include "transfer/admission_gate.h"
#include "transfer/calibration_shelf.h"
#include "transfer/decode_book.h"
#include "transfer/health_book.h"
#include "transfer/link_book.h"
#include "transfer/work_pool.h"

namespace kdn::actors {

// Memory for encoded objects that pass through this node: objects fetched from
// peers for an engine (reads), and objects on their way to owners elsewhere
// (writes). Reads are guaranteed half of it and writes a quarter, so that
// neither kind starves the other. No background work uses it.
struct PassingMemory {
  explicit PassingMemory(std::shared_ptr<storage::Arena> arena_in)
      : arena(std::move(arena_in)), gate(OptionsFor(arena->budget_bytes())) {}

  static Admission::Options OptionsFor(uint64_t bytes) {
    return {.budget = bytes,
            .shares = {.read = {.guaranteed = bytes / 2, .patience = 0},
                       .write = {.guaranteed = bytes / 4, .patience = bytes},
                       .background = {}}};
  }
  // Like AdmissionGate::Request, with two differences. The amount counts in
  // whole pages, as the arena does: what the gate grants, the arena can give.
  // The error for an object that is larger than its class may hold names a
  // remedy. Such an object would take memory that another class is guaranteed.
  AdmissionId Request(transfer::AdmissionGate::Ask ask,
                      transfer::AdmissionGate::Answer answer) {
    ask.amount = storage::BlockSource::RoundUpToPages(ask.amount);
    const uint64_t most = gate.most_of(ask.work_class);
    if (ask.amount <= most) return gate.Request(ask, std::move(answer));
    answer(absl::ResourceExhaustedError(absl::StrCat(
        "an object may take ", ask.amount, " bytes, but ", most,
        " is the most that ",
        ask.work_class == WorkClass::kRead ? "a read" : "a store",
        " may hold of this node's passing buffers: give the node more "
        "memory")));
    return AdmissionId();
  }

  const std::shared_ptr<storage::Arena> arena;
  transfer::AdmissionGate gate;
};

// What the actors and the services of one node share. Lives as long as the
// node. Every member is immutable or thread-safe.
struct NodeContext {
  NodeContext(NodeOptions options_in, delivery::PeerTransport* transport_in,
              ViewHolder* view_in, const Clock* clock_in)
      : options(std::move(options_in)),
        transport(transport_in),
        view(*view_in),
        clock(clock_in),
        shelf(ShelfOf(options), &calibrations),
        decoding(options.workers),
        pool(options.workers, options.meters.get()) {}

  // Where a node keeps its calibrations, and how many.
  static transfer::CalibrationShelf::Options ShelfOf(
      const NodeOptions& options) {
    transfer::CalibrationShelf::Options shelf;
    if (!options.data_dir.empty()) {
      shelf.directory = absl::StrCat(options.data_dir, "/calibrations");
    }
    shelf.bytes_max = CalibrationBytesMax(options.memory_bytes);
    return shelf;
  }

  const NodeId& self() const { return options.self; }
  // What this node tells `peer` before the two exchange data.
  placement::Introduction IntroductionTo(const NodeId& peer) const {
    return placement::IntroductionTo(peer, options.cluster, *view.Get());
  }
  Meters& meters() const { return *options.meters; }

  const NodeOptions options;
  delivery::PeerTransport* const transport;
  ViewHolder& view;
  const Clock* const clock;
  codec::CalibrationSet calibrations;
  transfer::CalibrationShelf shelf;
  // Set before the node serves; null in tests that need none.
  CalibrationActor calibration_actor;
  std::atomic<bool> calibrating{false};  // see NodeCalibrationRun
  std::unique_ptr<PassingMemory> passing;
  transfer::LinkBook links;
  transfer::HealthBook health;
  transfer::DecodeBook decoding;
  transfer::WorkPool pool;  // the last member: its tasks use the others
};

}  // namespace kdn::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<kdn::actors::NodeContext>)

#endif  // KDN_ACTORS_NODE_CONTEXT_H_
