#ifndef KDN_CODEC_TRANSFORM_STEP_PREDICTOR_H_
#define KDN_CODEC_TRANSFORM_STEP_PREDICTOR_H_

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/types/span.h"
#include "codec/calibration/calibration.h"

namespace kdn::codec {

// The exponent that a predictor gives for a row of mean.size() elements.
inline float PredictedExponent(const StepPredictor& predictor, const float* row,
                               absl::Span<const float> mean) {
  float sum = predictor.constant;
  for (size_t d = 0; d < mean.size(); ++d) {
    const float z = row[d] - mean[d];
    sum += (predictor.linear[d] + predictor.square[d] * z) * z;
  }
  return sum;
}

// The classes that the tokens of a stream may have at base. REQUIRES: more than
// kCoarserMax.
inline int BaseClasses(const std::vector<TokenClass>& classes) {
  return std::min<int>(kStreamClasses,
                       static_cast<int>(classes.size()) - kCoarserMax);
}

// The best class of a row at base, as a real number from 0 to
// BaseClasses(classes) - 1: that with the predicted exponent, if exponents rise
// by 1. The last if the prediction is not finite, as for rows near the largest
// float.
inline float WantedClass(const std::vector<TokenClass>& classes,
                         const StepPredictor& predictor, const float* row,
                         absl::Span<const float> mean) {
  const auto last = static_cast<float>(BaseClasses(classes) - 1);
  const float wanted = PredictedExponent(predictor, row, mean) -
                       static_cast<float>(classes.front().exponent);
  return std::isfinite(wanted) ? std::clamp(wanted, 0.0f, last) : last;
}

}  // namespace kdn::codec

#endif  // KDN_CODEC_TRANSFORM_STEP_PREDICTOR_H_
