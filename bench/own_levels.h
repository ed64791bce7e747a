#ifndef KDN_BENCH_OWN_LEVELS_H_
#define KDN_BENCH_OWN_LEVELS_H_

#include "absl/status/statusor.h"
#include "bench/kv_tensor.h"
#include "kv/level.h"
#include "kv/rope_spec.h"

namespace kdn::bench {

// A chunk through the KDN's codec at one level, back to the positions where it
// was computed. `bytes` is the whole object: header, token ids, index, streams.
absl::StatusOr<Coded> OwnLevel(Level level, const RopeSpec& rope,
                               const KvTensor& kv,
                               absl::Span<const int32_t> positions);

struct CodecSpeed {
  double encode_gbps = 0;  // of KV in the engine's dtype, one core
  double decode_gbps = 0;  // incl. checksum, RoPE and the store
};
// Of a chunk of 256 tokens with the geometry of Llama-3.1-8B in bf16, decoded
// to other positions. The best of several turns.
absl::StatusOr<CodecSpeed> MeasureSpeed(Level level);
inline constexpr size_t kSpeedChunkBytes = 32u << 20;

}  // namespace kdn::bench

#endif  // KDN_BENCH_OWN_LEVELS_H_
