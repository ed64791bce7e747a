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
  double base_bits = 1.5;  // a value, at the base level
  // Called with what is done of all, 0 to 1, and the tokens that the model has
  // read for it.
  std::function<void(double, int)> on_progress = [](double, int) {};
};

// Has the model read the tokens of a text and calibrates the transform-coded
// levels on its KV. How exactly each layer's K and V is kept follows from what
// noise in it does to the logits behind it, so the bits go where the model
// looks. Equal tokens give an equal calibration on one machine.
// INVALID_ARGUMENT when they are too few, or the levels cannot code such a
// model.
absl::StatusOr<codec::StoredCalibration> Calibrate(
    const model::Llama& llama, absl::Span<const int32_t> tokens,
    const CalibrationRun& run);

}  // namespace kdn::cli

#endif  // KDN_CLI_CALIBRATION_RUN_H_
