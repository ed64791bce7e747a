#ifndef KDN_CODEC_CALIBRATION_STEP_REGRESSION_H_
#define KDN_CODEC_CALIBRATION_STEP_REGRESSION_H_

#include "absl/types/span.h"
#include "codec/calibration/calibration.h"

namespace kdn::codec {

// Fits the predictor of a stream's steps, by ridge regression on rows and their
// squares. `rows` are [token][mean.size()]. `importance` has, for each row, the
// binary logarithm of what a squared error of the row costs; rows where it is
// NaN are left out. A token whose errors cost 2^b as much gets a step that is
// 2^(-kImportanceShare * b / 2) as large; the exponents have the mean 0. With
// fewer than FitRowsMin rows, all exponents are 0.
StepPredictor FitSteps(absl::Span<const float> rows,
                       absl::Span<const float> mean,
                       absl::Span<const float> importance);

// The fewest rows of `dim` dimensions that tell how to predict.
constexpr int FitRowsMin(int dim) { return 2 * dim; }

// At 1, all tokens would cost the same. Less is better, because predictions
// are not exact.
inline constexpr double kImportanceShare = 0.8;

}  // namespace kdn::codec

#endif  // KDN_CODEC_CALIBRATION_STEP_REGRESSION_H_
