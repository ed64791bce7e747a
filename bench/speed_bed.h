#ifndef KDN_BENCH_SPEED_BED_H_
#define KDN_BENCH_SPEED_BED_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/own_levels.h"
#include "codec/calibration.h"
#include "codec/isa.h"
#include "kv/level.h"

namespace kdn::bench {

struct CodecSpeed {
  double bits_per_value = 0;
  double encode_gbps = 0;  // of KV in the engine's dtype, one core
  double decode_gbps = 0;  // incl. checksum, RoPE and the store
};

// A chunk of 256 tokens with the geometry of Llama-3.1-8B in bf16, 32 MB. Rows
// are Gaussian with the spectra that KV of such models is reported to have
// (eigenvalues exp(-k / 16) of K before RoPE, exp(-k / 48) of V), so the
// transform-coded levels code what they would; one layer is drawn and
// calibrated and stands for all.
class SpeedBed {
 public:
  static absl::StatusOr<SpeedBed> Create(double base_bits);

  // The best of several turns. Decodes to other positions than those where the
  // KV was computed.
  absl::StatusOr<CodecSpeed> Measure(Level level, codec::Isa isa);

 private:
  explicit SpeedBed(const KvShape& shape);

  KvShape shape_;
  RopeSpec rope_;
  std::vector<int32_t> positions_;
  std::shared_ptr<const codec::Calibration> calibration_;
  KvMemory memory_;
  std::vector<std::byte> object_;
};
inline constexpr size_t kSpeedChunkBytes = 32u << 20;

}  // namespace kdn::bench

#endif  // KDN_BENCH_SPEED_BED_H_
