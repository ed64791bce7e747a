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

// KV of a known spectrum and a calibration that fits it, to measure and test
// decoders without a model.

// Makes a calibration with every form that a band can have, also absent bands.
// FillFitting's KV takes about 1.5 bits per value at the base level. Equal
// arguments give equal calibrations. `components` is a multiple of 16, at most
// the dimensions of a stream rounded up to a multiple of 16; 0: that many.
std::shared_ptr<const codec::Calibration> SyntheticCalibration(
    const codec::Calibration::Geometry& geometry, uint32_t seed,
    int components = 0);

// Draws rows that the calibration fits, K after RoPE at `positions`. One row in
// 64 is 20 times as far from the mean as the others. REQUIRES: one position per
// token.
void FillFitting(const codec::Calibration& calibration, const RopeSpec& rope,
                 absl::Span<const int32_t> positions, std::mt19937* rng,
                 const MutableKvView& kv);

}  // namespace kdn::bench

#endif  // KDN_BENCH_CUDA_SYNTHETIC_KV_H_
