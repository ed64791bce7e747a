#include "bench/two_nodes.h"

#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/clock.h"

namespace kdn::bench {
namespace {

constexpr absl::Duration kTurn = absl::Seconds(1);

}  // namespace

absl::StatusOr<TwoNodes> StartTwoNodes(const DeliveryOptions& options,
                                       const TwoNodesOptions& of_chunks) {
  cli::LocalClusterOptions cluster;
  cluster.nodes = 2;
  cluster.replicas = 1;
  cluster.memory_bytes = 3ull << 30;
  cluster.disk_bytes = 0;
  cluster.calibrations = of_chunks.calibrations;
  cluster.tls = of_chunks.tls;
  absl::StatusOr<std::unique_ptr<Bed>> bed =
      Bed::Start(options, cluster, kTwoNodesChunks * ChunkBytes());
  if (!bed.ok()) return bed.status();
  TwoNodes nodes;
  nodes.bed = *std::move(bed);
  if (of_chunks.fill != nullptr) of_chunks.fill(nodes.bed->ViewAt(0));
  const NodeId self = nodes.bed->client().node().id;
  rpc::Knowledge& knowledge = nodes.bed->knowledge();
  for (int i = 0; i < kTwoNodesChunks; ++i) {
    rpc::StoreSpec spec = SpecOf(knowledge, i);
    spec.levels = of_chunks.levels;
    if (of_chunks.computed_at_zero) {
      spec.positions.assign(spec.positions.size(), 0);
    }
    const absl::StatusOr<StoreReceipt> receipt =
        knowledge.Store(spec, nodes.bed->ViewAt(0), absl::Seconds(60));
    if (!receipt.ok()) return receipt.status();
    (receipt->holders[0] == self ? nodes.here : nodes.there)
        .push_back(std::move(spec));
  }
  return nodes;
}

absl::StatusOr<Delivered> DeliverForASecond(
    Bed& bed, absl::Span<const rpc::StoreSpec> chunks, LevelSet accept) {
  rpc::RetrieveSpec spec;
  spec.accept = accept;
  for (size_t i = 0; i < chunks.size(); ++i) {
    std::vector<int32_t> positions(chunks[i].positions.size());
    std::iota(positions.begin(), positions.end(), 0);
    spec.chunks.push_back(
        {RefOf(chunks[i]), std::move(positions), bed.ViewAt(i * ChunkBytes())});
  }
  uint64_t bytes = 0;
  uint64_t wire = 0;
  const absl::Time begin = SteadyNow();
  while (SteadyNow() - begin < kTurn) {
    const auto outcomes =
        bed.knowledge().Retrieve(spec, nullptr, absl::Seconds(60));
    if (!outcomes.ok()) return outcomes.status();
    for (const ChunkOutcome& outcome : *outcomes) {
      if (outcome.kind != OutcomeKind::kHit) {
        return absl::InternalError(
            absl::StrCat("a chunk was not delivered: ", outcome.why.message()));
      }
      wire += outcome.wire_bytes;
      bytes += ChunkBytes();
    }
  }
  const absl::Duration took = SteadyNow() - begin;
  return Delivered{GbpsOf(bytes, took), GbpsOf(wire, took)};
}

}  // namespace kdn::bench
