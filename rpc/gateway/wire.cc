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
constexpr std::array<const char*, 4> kFeatures = {
    "refuses-unknown", "layers-per-call", "calibrations", "calibration-runs"};

// OK when no list of the store is longer than it may be. Nothing is copied.
absl::Status CheckListSizes(wire::StoreRequest::Reader request) {
  const uint64_t tokens = request.getTokens().size();
  if (tokens > kChunkTokensMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "chunk has ", tokens, " tokens, expected 1 to ", kChunkTokensMax));
  }
  return CheckPositionCount(request.getPositions().size());
}

// Fills in identity, depth and placement of a store, after comparing the
// client's key with the key that this node computes.
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
    out.identity.variant = NameFromWire(request.getVariant());
  }
  out.identity.tokens = FromWire(request.getTokens());
  out.depth = request.getDepth();
  if (absl::Status status = Validate(out.identity); !status.ok()) return status;
  if (absl::Status status = ValidateDepth(out.identity, out.depth);
      !status.ok()) {
    return status;
  }
  const ChunkKey key = KeyOf(out.identity, out.depth);
  if (key == *claimed) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("client hashes differently: it calls this chunk ",
                   ShortHex(*claimed), ", this node ", ShortHex(key)));
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

void FillCalibration(const CalibrationEntry& entry,
                     wire::Calibration::Builder out) {
  out.setId(ToWire(entry.id));
  out.setModel(ToWire(entry.model));
  out.setCreatedS(static_cast<uint64_t>(absl::ToUnixSeconds(entry.created)));
  out.setBytes(entry.bytes);
  auto nodes = out.initNodes(static_cast<unsigned>(entry.holders.size()));
  for (unsigned i = 0; i < nodes.size(); ++i) {
    nodes.set(i, entry.holders[i].name());
  }
}

void FillNodeStatus(const NodeStatus& status, wire::NodeStatus::Builder out) {
  out.setId(status.id.name());
  out.setGatewayAddress(status.gateway_address);
  out.setAlive(status.alive);
  const std::vector<MetricSample> samples = status.metrics.Samples();
  auto metrics = out.initMetrics(static_cast<unsigned>(samples.size()));
  for (unsigned i = 0; i < samples.size(); ++i) ToWire(samples[i], metrics[i]);
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

absl::Status CheckPositionCount(uint64_t count) {
  if (count > 0 && count <= kChunkTokensMax) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "chunk has ", count, " positions, expected 1 to ", kChunkTokensMax));
}

absl::Status CheckPositions(const std::vector<int32_t>& positions) {
  if (absl::Status s = CheckPositionCount(positions.size()); !s.ok()) return s;
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
  if (absl::Status s = CheckListSizes(request); !s.ok()) return s;
  delivery::StoreRequest out{
      .model = std::move(model),
      .identity = {fingerprint, ns, ChunkKey(), std::string(kRawVariant), {}},
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
    return absl::UnimplementedError(
        "a durability that this node does not know");
  }
  out.durability = static_cast<Durability>(request.getDurability());
  return out;
}

}  // namespace kdn::rpc
