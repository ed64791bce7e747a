#include "rpc/client/wire.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "rpc/wire.h"

namespace kdn::rpc {
namespace {

// A tier that only a newer node knows is read as memory.
Tier FromWire(wire::Tier tier) {
  return tier == wire::Tier::DISK ? Tier::kDisk : Tier::kMemory;
}

}  // namespace

NodeInfo FromWire(wire::NodeInfo::Reader info) {
  std::vector<std::string> features;
  for (const auto feature : info.getFeatures()) {
    features.push_back(FromWire(feature));
  }
  return NodeInfo{.id = NodeId(FromWire(info.getId())),
                  .software = FromWire(info.getSoftware()),
                  .chunks_per_call_max = info.getChunksPerCallMax(),
                  .message_bytes_max = info.getMessageBytesMax(),
                  .memory_bytes_max = info.getMemoryBytesMax(),
                  .stores_in_flight_max = info.getStoresInFlightMax(),
                  .store_bytes_max = info.getStoreBytesMax(),
                  .features = std::move(features)};
}

NodeStatus FromWire(wire::NodeStatus::Reader status) {
  NodeStatus out{.id = NodeId(FromWire(status.getId())),
                 .gateway_address = FromWire(status.getGatewayAddress()),
                 .alive = status.getAlive(),
                 .metrics = {}};
  for (const auto metric : status.getMetrics()) {
    out.metrics.Add(FromWire(metric));
  }
  return out;
}

absl::StatusOr<CalibrationEntry> FromWire(
    wire::Calibration::Reader calibration) {
  const auto id =
      DigestFromWire<CalibrationId>(calibration.getId(), "calibration id");
  if (!id.ok()) return absl::DataLossError(id.status().message());
  const auto model = DigestFromWire<ModelFingerprint>(calibration.getModel(),
                                                      "model fingerprint");
  if (!model.ok()) return absl::DataLossError(model.status().message());
  CalibrationEntry entry{
      *id,
      *model,
      absl::FromUnixSeconds(static_cast<int64_t>(calibration.getCreatedS())),
      calibration.getBytes(),
      {}};
  for (const auto node : calibration.getNodes()) {
    entry.holders.emplace_back(FromWire(node));
  }
  return entry;
}

LookupResult FromWire(wire::LookupResult::Reader result) {
  return LookupResult{.hit = result.getHit(),
                      .node = NodeId(FromWire(result.getNode())),
                      .tier = FromWire(result.getTier()),
                      .levels = LevelSet::FromBits(result.getLevels()),
                      .bytes = result.getBytes(),
                      .version = ObjectVersion(result.getVersion())};
}

ChunkOutcome FromWire(wire::ChunkOutcome::Reader outcome) {
  ChunkOutcome out;
  // The value for a kind that only a newer node knows.
  out.kind = OutcomeKind::kFailed;
  switch (outcome.getKind()) {
    case wire::OutcomeKind::HIT:
      out.kind = OutcomeKind::kHit;
      break;
    case wire::OutcomeKind::MISS:
      out.kind = OutcomeKind::kMiss;
      break;
    case wire::OutcomeKind::FAILED:
      out.kind = OutcomeKind::kFailed;
      break;
    case wire::OutcomeKind::RECOMPUTE:
      out.kind = OutcomeKind::kRecompute;
      break;
  }
  if (outcome.getKind() == wire::OutcomeKind::FAILED) {
    out.why = FromWire(outcome.getWhy());
  } else if (out.kind == OutcomeKind::kFailed ||
             outcome.getLevel() > wire::Level::ARCHIVE) {
    out.kind = OutcomeKind::kFailed;
    out.why = absl::UnimplementedError(
        "an outcome or a level that this client does not know");
  }
  out.level = FromWire(outcome.getLevel());
  out.source = NodeId(FromWire(outcome.getSource()));
  out.tier = FromWire(outcome.getTier());
  out.version = ObjectVersion(outcome.getVersion());
  out.wire_bytes = outcome.getWireBytes();
  return out;
}

absl::StatusOr<StoreReceipt> FromWire(wire::StoreReceipt::Reader receipt) {
  const auto key = DigestFromWire<ChunkKey>(receipt.getKey(), "receipt's key");
  if (!key.ok()) return absl::DataLossError(key.status().message());
  StoreReceipt out{.key = *key,
                   .version = ObjectVersion(receipt.getVersion()),
                   .existed = receipt.getExisted(),
                   .bytes = receipt.getBytes(),
                   .holders = {}};
  for (const auto holder : receipt.getHolders()) {
    out.holders.emplace_back(FromWire(holder));
  }
  return out;
}

void ToWire(const StoreSpec& spec, wire::StoreRequest::Builder out) {
  const ChunkKey key = KeyOf(spec.identity, spec.depth);
  out.setKey(ToWire(key));
  if (!spec.identity.condition.is_zero()) {
    out.setCondition(ToWire(spec.identity.condition));
  }
  out.setVariant(spec.identity.variant);
  FillList(spec.identity.tokens,
           out.initTokens(static_cast<unsigned>(spec.identity.tokens.size())));
  FillList(spec.positions,
           out.initPositions(static_cast<unsigned>(spec.positions.size())));
  out.setLevels(spec.levels.bits());
  out.setDurability(static_cast<wire::Durability>(spec.durability));
  out.setTtlMs(static_cast<uint64_t>(absl::ToInt64Milliseconds(spec.ttl)));
  out.setDepth(spec.depth);
}

absl::Status CheckCount(size_t answered, size_t asked) {
  if (answered == asked) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("the gateway answered for ", answered,
                                          " chunks, expected ", asked));
}

}  // namespace kdn::rpc
