#ifndef KDN_BENCH_OWN_LEVELS_H_
#define KDN_BENCH_OWN_LEVELS_H_

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"
#include "bench/kv_tensor.h"
#include "codec/calibration/calibration.h"
#include "codec/format/object.h"
#include "kv/host_memory.h"
#include "kv/isa.h"
#include "kv/level.h"
#include "kv/line_vector.h"
#include "kv/rope_spec.h"

namespace kdn::bench {

// Encodes a chunk at one level of the KDN's codec and decodes it at the
// positions where it was computed. `bytes` counts the whole object: header,
// token ids, index, and the streams of the level and of the levels it refines.
// `calibration` matters for transform-coded levels; null stands for the
// built-in calibration.
absl::StatusOr<Coded> OwnLevel(
    Level level, std::shared_ptr<const codec::Calibration> calibration,
    const RopeSpec& rope, const KvTensor& kv,
    absl::Span<const int32_t> positions);

// The header of a chunk that OwnLevel encodes.
absl::StatusOr<codec::ObjectHeader> HeaderOf(
    Level level, const RopeSpec& rope, const KvShape& shape,
    absl::Span<const int32_t> positions);

// Memory for KV, of the same kind as the memory in MemcpyGbps.
class KvMemory {
 public:
  explicit KvMemory(const KvShape& shape);
  MutableKvView view() {
    return {memory_.data(), shape_, KvStrides::HeadMajor(shape_)};
  }

 private:
  KvShape shape_;
  PrivateMemory memory_;
};

}  // namespace kdn::bench

#endif  // KDN_BENCH_OWN_LEVELS_H_
