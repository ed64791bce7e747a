#ifndef KDN_BENCH_SPEED_BED_H_
#define KDN_BENCH_SPEED_BED_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/own_levels.h"
#include "codec/calibration/calibration.h"
#include "codec/calibration/calibration_format.h"
#include "codec/kernels/isa.h"
#include "kv/kv_view.h"
#include "kv/level.h"
#include "kv/line_vector.h"
#include "kv/model_spec.h"

namespace kdn::bench {

struct CodecSpeed {
  double bits_per_value = 0;
  double encode_gbps = 0;  // of KV in the engine's dtype, one core
  double decode_gbps = 0;  // incl. checksum, RoPE and the store
};

// KV as large models' is reported to be: rows are Gaussian with eigenvalues
// exp(-k / 16) of K before RoPE and exp(-k / 48) of V, so that the
// transform-coded levels code what they would. One layer is drawn and
// calibrated and stands for all. K is as computed at position 0, where RoPE
// does nothing.
void FillWithSpectra(const MutableKvView& kv);
absl::StatusOr<codec::StoredCalibration> CalibrateOnSpectra(
    const ModelSpec& model, double base_bits);

// A chunk of 256 tokens of such KV with the geometry of Llama-3.1-8B in bf16,
// 32 MB.
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
  LineVector<std::byte> object_;
};
inline constexpr size_t kSpeedChunkBytes = 32u << 20;

}  // namespace kdn::bench

#endif  // KDN_BENCH_SPEED_BED_H_
