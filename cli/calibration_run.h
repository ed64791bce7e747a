#ifndef KDN_CLI_CALIBRATION_RUN_H_
#define KDN_CLI_CALIBRATION_RUN_H_

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "codec/calibration/calibration_format.h"
#include "model/llama.h"

namespace kdn::cli {

struct CalibrationRun {
  double base_bits = 1.5;  // bits per value to aim at, at the base level
  // Called with the share of the work that is done, 0 to 1, and the number of
  // tokens that the model has read so far.
  std::function<void(double, int)> on_progress = [](double, int) {};
};

// Lets the model read the tokens of a text and calibrates the transform-coded
// levels on the resulting KV. The calibration spends more bits on a layer's K
// or V when noise in it changes the logits of later tokens more. On one
// machine, equal tokens give equal calibrations. INVALID_ARGUMENT when the
// tokens are too few, or the levels cannot code KV of this model.
absl::StatusOr<codec::StoredCalibration> Calibrate(
    const model::Llama& llama, absl::Span<const int32_t> tokens,
    const CalibrationRun& run);

}  // namespace kdn::cli

#endif  // KDN_CLI_CALIBRATION_RUN_H_
