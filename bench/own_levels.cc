#include "bench/own_levels.h"

#include <utility>

#include "codec/whole_object.h"
#include "kv/check.h"

namespace kdn::bench {

absl::StatusOr<codec::ObjectHeader> HeaderOf(
    Level level, const RopeSpec& rope, const KvShape& shape,
    absl::Span<const int32_t> positions) {
  absl::StatusOr<Namespace> ns = Namespace::Parse("bench");
  if (!ns.ok()) return ns.status();
  codec::ObjectHeader header{
      .identity = {.fingerprint = {},
                   .ns = *std::move(ns),
                   .condition = {},
                   .tokens = {positions.begin(), positions.end()}},
      .shape = shape,
      .rope = rope,
      .positions = {positions.begin(), positions.end()},
      .levels = LevelSet::Of(level).WithRefined(),
      .calibration = {}};
  return header;
}

KvMemory::KvMemory(const KvShape& shape) : shape_(shape) {
  absl::StatusOr<PrivateMemory> memory = PrivateMemory::Create(shape.bytes());
  KDN_CHECK(memory.ok(), "there is memory for a chunk");
  memory_ = *std::move(memory);
}

absl::StatusOr<Coded> OwnLevel(
    Level level, std::shared_ptr<const codec::Calibration> calibration,
    const RopeSpec& rope, const KvTensor& kv,
    absl::Span<const int32_t> positions) {
  if (calibration == nullptr) {
    calibration =
        codec::Calibration::Uncalibrated(codec::GeometryOf(kv.shape()));
  }
  absl::StatusOr<codec::ObjectHeader> header =
      HeaderOf(level, rope, kv.shape(), positions);
  if (!header.ok()) return header.status();
  KvMemory memory(kv.shape());
  kv.Store(memory.view());
  LineVector<std::byte> object;
  if (absl::Status status =
          codec::EncodeWhole(*header, calibration, memory.view(), object);
      !status.ok()) {
    return status;
  }
  KvMemory decoded(kv.shape());
  if (absl::Status status = codec::DecodeWhole(object, level, calibration,
                                               positions, decoded.view());
      !status.ok()) {
    return status;
  }
  return Coded{KvTensor::Of(decoded.view()), object.size()};
}

}  // namespace kdn::bench
