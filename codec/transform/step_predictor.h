#ifndef KDN_CODEC_TRANSFORM_STEP_PREDICTOR_H_
#define KDN_CODEC_TRANSFORM_STEP_PREDICTOR_H_

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

}  // namespace kdn::codec

#endif  // KDN_CODEC_TRANSFORM_STEP_PREDICTOR_H_
