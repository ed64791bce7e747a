#ifndef KDN_BENCH_CUDA_SYNTHETIC_KV_H_
#define KDN_BENCH_CUDA_SYNTHETIC_KV_H_

#include <cstdint>
#include <memory>
#include <random>

#include "absl/types/span.h"
#include "codec/calibration/calibration.h"
#include "kv/kv_view.h"
#include "kv/rope_spec.h"

namespace kdn::bench {

// KV of a known spectrum and the calibration that fits it, for measuring and
// testing decoders where there is no model. At the base level about 1.5 bits a
// value, in every form a band can have, absent ones too.

// A function of its arguments. `components` is a multiple of 16, at most the
// dimensions of a stream rounded up to one; 0: as many as there are.
std::shared_ptr<const codec::Calibration> SyntheticCalibration(
    const codec::Calibration::Geometry& geometry, uint32_t seed,
    int components = 0);

// Rows that the calibration fits, K after RoPE at `positions`; one of 64 tokens
// is far longer than the others. REQUIRES: one position per token.
void FillFitting(const codec::Calibration& calibration, const RopeSpec& rope,
                 absl::Span<const int32_t> positions, std::mt19937* rng,
                 const MutableKvView& kv);

}  // namespace kdn::bench

#endif  // KDN_BENCH_CUDA_SYNTHETIC_KV_H_
