#ifndef KDN_RPC_WIRE_H_
#define KDN_RPC_WIRE_H_

#include <capnp/list.h>
#include <kj/exception.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kv/chunk_key.h"
#include "kv/kv_view.h"
#include "kv/level.h"
#include "kv/metric_values.h"
#include "kv/model_spec.h"
#include "rpc/kdn.capnp.h"

// Converts between the structs of kdn.capnp and the project's values, for
// client and gateway. FromWire checks every field: a value that is not valid is
// INVALID_ARGUMENT, and an enumerant or a level that this build does not know
// is UNIMPLEMENTED.
namespace kdn::rpc {

wire::Code ToWire(absl::StatusCode code);
absl::StatusCode FromWire(wire::Code code);
void ToWire(const absl::Status& status, wire::Status::Builder out);
absl::Status FromWire(wire::Status::Reader status);
// The status of an exception: DISCONNECTED, a broken transport, is UNAVAILABLE.
absl::Status FromException(const kj::Exception& exception);

inline std::string FromWire(capnp::Text::Reader text) {
  return std::string(text.begin(), text.end());
}
// A name that a client sent, cut off behind the longest name that can be valid,
// so that no error repeats a text of megabytes.
std::string NameFromWire(capnp::Text::Reader text);
// The whole text. A setter that gets the std::string itself ends it at its
// first zero byte.
inline capnp::Text::Reader TextOf(const std::string& text) {
  return capnp::Text::Reader(text.c_str(), text.size());
}
inline capnp::Data::Reader DataOf(absl::Span<const uint8_t> bytes) {
  return capnp::Data::Reader(bytes.data(), bytes.size());
}

template <typename Tag>
capnp::Data::Reader ToWire(const Digest<Tag>& digest) {
  return DataOf(digest.bytes());
}
absl::Status BadDigest(const char* what, size_t bytes);
template <typename D>
absl::StatusOr<D> DigestFromWire(capnp::Data::Reader data, const char* what) {
  auto digest =
      D::FromBytes(absl::Span<const uint8_t>(data.begin(), data.size()));
  if (!digest) return BadDigest(what, data.size());
  return *digest;
}

void ToWire(const ModelSpec& model, wire::ModelSpec::Builder out);
absl::StatusOr<ModelSpec> FromWire(wire::ModelSpec::Reader model);

void ToWire(const KvStrides& strides, wire::Strides::Builder out);
// A stride above 2^63 - 1 becomes negative, and ValidateInside refuses it.
KvStrides FromWire(wire::Strides::Reader strides);

void ToWire(const KvSlice& slice, wire::Slice::Builder out);
// Four zeros are the whole model. INVALID_ARGUMENT for a slice that is not
// inside the model.
absl::StatusOr<KvSlice> FromWire(wire::Slice::Reader slice,
                                 const ModelSpec& model);

void ToWire(const ChunkRef& ref, wire::ChunkRef::Builder out);
absl::StatusOr<ChunkRef> FromWire(wire::ChunkRef::Reader ref);
absl::StatusOr<std::vector<ChunkRef>> FromWire(
    capnp::List<wire::ChunkRef>::Reader refs, size_t count_max);

template <typename ListBuilder>
void FillList(absl::Span<const int32_t> values, ListBuilder out) {
  for (size_t i = 0; i < values.size(); ++i) {
    out.set(static_cast<unsigned>(i), values[i]);
  }
}
std::vector<int32_t> FromWire(capnp::List<int32_t>::Reader values);

void ToWire(const MetricSample& sample, wire::Metric::Builder out);
// A type that only a newer node knows is read as a gauge.
MetricSample FromWire(wire::Metric::Reader metric);

wire::Level ToWire(Level level);
// A level that only a newer node knows is read as lossless: check for it
// before.
Level FromWire(wire::Level level);
// The set of levels of a bit mask; `when_zero` for 0. UNIMPLEMENTED for a bit
// that is not a level.
absl::StatusOr<LevelSet> LevelsFromWire(uint8_t bits, LevelSet when_zero);

// The timeout of a request's deadlineMs. INVALID_ARGUMENT above ten minutes.
absl::StatusOr<absl::Duration> TimeoutFromWire(uint32_t deadline_ms);
// The deadlineMs of a timeout: rounded up to a whole millisecond, at least 1,
// at most ten minutes.
uint32_t TimeoutToWire(absl::Duration timeout);

}  // namespace kdn::rpc

#endif  // KDN_RPC_WIRE_H_
