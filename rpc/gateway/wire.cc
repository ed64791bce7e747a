#include "rpc/gateway/wire.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "rpc/api.h"
#include "rpc/wire.h"

namespace kdn::rpc {
namespace {

// NodeInfo.features; docs/protocol.md says what each name means.
constexpr std::array<const char*, 1> kFeatures = {"refuses-unknown"};

void FillStore(const storage::PartitionCounters& c,
               wire::StoreCounters::Builder out) {
  out.setLookups(c.lookups);
  out.setHitsMemory(c.hits_memory);
  out.setHitsDisk(c.hits_disk);
  out.setMisses(c.misses);
  out.setFailures(c.failures);
  out.setCommits(c.commits);
  out.setCommitsExisted(c.commits_existed);
  out.setEvictions(c.evictions);
  out.setEvictionsLost(c.evictions_lost);
  out.setDamaged(c.damaged);
  out.setRemoved(c.removed);
  out.setObjects(c.objects);
  out.setMemoryObjects(c.memory_objects);
  out.setMemoryBytes(c.memory_bytes);
  out.setDiskBytes(c.disk_bytes);
  out.setLeases(c.leases);
}

void FillDisk(const storage::DiskTier::Counters& c,
              wire::DiskCounters::Builder out) {
  out.setLiveBytes(c.live_bytes);
  out.setSegmentBytes(c.segment_bytes);
  out.setSegments(c.segments);
  out.setObjects(c.objects);
  out.setWrites(c.writes);
  out.setReads(c.reads);
  out.setBytesWritten(c.bytes_written);
  out.setBytesRead(c.bytes_read);
  out.setEvictions(c.evictions);
  out.setDamaged(c.damaged);
  out.setCleanedSegments(c.cleaned_segments);
  out.setRebuiltObjects(c.rebuilt_objects);
  out.setIoUring(c.io_uring);
  out.setDirect(c.direct);
}

// The identity a store claims, and its placement, once the key agrees.
absl::Status FillIdentity(wire::StoreRequest::Reader request,
                          delivery::StoreRequest& out) {
  const auto claimed = DigestFromWire<ChunkKey>(request.getKey(), "chunk key");
  if (!claimed.ok()) return claimed.status();
  if (request.getCondition().size() != 0) {
    const auto condition =
        DigestFromWire<ChunkKey>(request.getCondition(), "condition");
    if (!condition.ok()) return condition.status();
    out.identity.condition = *condition;
  }
  if (request.getVariant().size() != 0) {
    out.identity.variant = FromWire(request.getVariant());
  }
  out.identity.tokens = FromWire(request.getTokens());
  out.depth = request.getDepth();
  if (absl::Status status = Validate(out.identity); !status.ok()) return status;
  if (absl::Status status = ValidateDepth(out.identity, out.depth);
      !status.ok()) {
    return status;
  }
  const ChunkKey key = KeyOf(out.identity);
  if (key != *claimed) {
    return absl::InvalidArgumentError(
        absl::StrCat("client hashes differently: it calls this chunk ",
                     ShortHex(*claimed), ", this node ", ShortHex(key)));
  }
  out.placement = PlacementOf(key);
  if (request.getPlacement().size() == 0) return absl::OkStatus();
  const auto placement =
      DigestFromWire<PlacementKey>(request.getPlacement(), "placement");
  if (placement.ok()) out.placement = *placement;
  return placement.status();
}

}  // namespace

void FillNodeInfo(const GatewayState& gateway, bool local,
                  wire::NodeInfo::Builder out) {
  const Gateway::Options& options = gateway.options;
  out.setId(gateway.node->self().name());
  out.setSoftware("kdn");
  out.setChunksPerCallMax(static_cast<uint32_t>(options.chunks_per_call_max));
  out.setMessageBytesMax(options.message_bytes_max);
  out.setMemoryBytesMax(local ? options.session_memory_bytes_max : 0);
  out.setStoresInFlightMax(static_cast<uint32_t>(options.session_stores_max));
  out.setStoreBytesMax(options.session_store_bytes_max);
  auto features = out.initFeatures(static_cast<unsigned>(kFeatures.size()));
  for (unsigned i = 0; i < features.size(); ++i) {
    features.set(i, kFeatures[i]);
  }
}

void FillRate(const delivery::RateCounters& c,
              wire::RateCounters::Builder out) {
  out.setPlans(c.plans);
  out.setPlansBlind(c.plans_blind);
  out.setChunksLoaded(c.chunks_loaded);
  out.setChunksRecomputed(c.chunks_recomputed);
  out.setBytesPredicted(c.bytes_predicted);
  out.setBytesActual(c.bytes_actual);
  out.setLoadUsPredicted(c.load_us_predicted);
  out.setLoadUsActual(c.load_us_actual);
  out.setLate(c.late);
  out.setSlowerThanRecompute(c.slower_than_recompute);
}

void FillNodeStatus(const delivery::NodeStatus& status,
                    wire::NodeStatus::Builder out) {
  out.setId(status.id.name());
  out.setGatewayAddress(status.gateway_address);
  out.setAlive(status.alive);
  out.setEpoch(status.epoch);
  out.setShardsPrimary(status.shards_primary);
  out.setShardsHeld(status.shards_held);
  FillStore(status.store, out.initStore());
  FillDisk(status.disk, out.initDisk());
  out.setStores(status.stores);
  out.setRetrieves(status.retrieves);
  out.setChunksHit(status.chunks_hit);
  out.setChunksMissed(status.chunks_missed);
  out.setChunksFailed(status.chunks_failed);
  out.setChunksRecomputed(status.chunks_recomputed);
  FillRate(status.rate, out.initRate());
  out.setPeerBytesIn(status.peer_bytes_in);
  out.setPeerBytesOut(status.peer_bytes_out);
  out.setEngineBytesIn(status.engine_bytes_in);
  out.setEngineBytesOut(status.engine_bytes_out);
  out.setMemoryBudgetBytes(status.memory_budget_bytes);
  out.setRssBytes(status.rss_bytes);
  out.setUptimeS(status.uptime_s);
}

void FillLookupResult(const LookupResult& result,
                      wire::LookupResult::Builder out) {
  out.setHit(result.hit);
  if (!result.hit) return;
  out.setNode(result.node.name());
  out.setTier(static_cast<wire::Tier>(result.tier));
  out.setLevels(result.levels.bits());
  out.setBytes(result.bytes);
  out.setVersion(result.version.value());
}

void FillOutcome(const ChunkOutcome& outcome, wire::ChunkOutcome::Builder out) {
  out.setKind(static_cast<wire::OutcomeKind>(outcome.kind));
  if (outcome.kind == OutcomeKind::kFailed) {
    ToWire(outcome.why, out.initWhy());
  }
  if (outcome.kind != OutcomeKind::kHit) return;
  out.setLevel(ToWire(outcome.level));
  out.setSource(outcome.source.name());
  out.setTier(static_cast<wire::Tier>(outcome.tier));
  out.setVersion(outcome.version.value());
  out.setWireBytes(outcome.wire_bytes);
}

void FillReceipt(const StoreReceipt& receipt, wire::StoreReceipt::Builder out) {
  out.setKey(ToWire(receipt.key));
  out.setVersion(receipt.version.value());
  out.setExisted(receipt.existed);
  out.setBytes(receipt.bytes);
  auto holders = out.initHolders(static_cast<unsigned>(receipt.holders.size()));
  for (unsigned i = 0; i < receipt.holders.size(); ++i) {
    holders.set(i, receipt.holders[i].name());
  }
}

absl::StatusOr<absl::Duration> TtlFromWire(uint64_t ttl_ms, bool zero_allowed) {
  const uint64_t max =
      static_cast<uint64_t>(absl::ToInt64Milliseconds(kTtlMax));
  if (ttl_ms > max || (ttl_ms == 0 && !zero_allowed)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "ttlMs is ", ttl_ms, ", expected ", zero_allowed ? 0 : 1, " to ", max));
  }
  return absl::Milliseconds(static_cast<int64_t>(ttl_ms));
}

absl::Status CheckPositions(const std::vector<int32_t>& positions) {
  if (positions.empty() || positions.size() > kChunkTokensMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("chunk has ", positions.size(),
                     " positions, expected 1 to ", kChunkTokensMax));
  }
  for (size_t i = 0; i < positions.size(); ++i) {
    if (positions[i] < 0) {
      return absl::InvalidArgumentError(absl::StrCat("position of token ", i,
                                                     " is ", positions[i],
                                                     ", expected at least 0"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<delivery::StoreRequest> StoreFromWire(
    wire::StoreRequest::Reader request, std::shared_ptr<const ModelSpec> model,
    const ModelFingerprint& fingerprint, const Namespace& ns) {
  delivery::StoreRequest out{
      .model = std::move(model),
      .identity = {fingerprint, ns, ChunkKey(), std::string(kRawVariant), {}},
      .placement = {},
      .positions = FromWire(request.getPositions()),
      .deadline = absl::InfiniteFuture()};
  if (absl::Status status = FillIdentity(request, out); !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckPositions(out.positions); !status.ok()) {
    return status;
  }
  if (out.positions.size() != out.identity.tokens.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(out.positions.size(), " positions for ",
                     out.identity.tokens.size(), " tokens"));
  }
  const auto levels =
      LevelsFromWire(request.getLevels(), LevelSet::Of(Level::kLossless));
  if (!levels.ok()) return levels.status();
  out.levels = levels->WithRefined();
  const auto ttl = TtlFromWire(request.getTtlMs(), /*zero_allowed=*/true);
  if (!ttl.ok()) return ttl.status();
  out.ttl = *ttl;
  if (request.getDurability() > wire::Durability::DURABLE) {
    return absl::UnimplementedError("a durability this node does not know");
  }
  out.durability = static_cast<Durability>(request.getDurability());
  return out;
}

}  // namespace kdn::rpc
