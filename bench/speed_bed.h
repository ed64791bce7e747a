#ifndef KDN_BENCH_SPEED_BED_H_
#define KDN_BENCH_SPEED_BED_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/own_levels.h"
#include "codec/calibration/calibration.h"
#include "codec/calibration/calibration_format.h"
#include "kv/kv_view.h"
#include "kv/level.h"
#include "kv/line_vector.h"
#include "kv/model_spec.h"

namespace kdn::bench {

struct CodecSpeed {
  double bits_per_value = 0;
  double encode_gbps = 0;  // GB/s of KV in the engine's dtype, on one core
  double decode_gbps = 0;  // likewise, with checksum, RoPE and the final store
};

// Fills KV with a spectrum like that reported for large models, so that the
// transform-coded levels take a realistic time. Rows are Gaussian; the
// covariance of K before RoPE has the eigenvalues exp(-k / 16), that of V has
// exp(-k / 48). All layers are equal. K is as if computed at position 0, where
// RoPE changes nothing.
void FillWithSpectra(const MutableKvView& kv);
// Calibrates on KV of that spectrum: on one layer, for all layers.
absl::StatusOr<codec::StoredCalibration> CalibrateOnSpectra(
    const ModelSpec& model, double base_bits);

// A chunk to encode and decode: FillWithSpectra's KV, 256 tokens, the geometry
// of Llama-3.1-8B, bf16, 32 MB.
class SpeedBed {
 public:
  static absl::StatusOr<SpeedBed> Create(double base_bits);

  // Returns the median rates of several turns, with the instruction set of this
  // process. Decoding moves K to positions other than those where the KV was
  // computed.
  absl::StatusOr<CodecSpeed> Measure(Level level);

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
