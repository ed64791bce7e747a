#ifndef KDN_CLI_CALIBRATION_RUN_H_
#define KDN_CLI_CALIBRATION_RUN_H_

#include <functional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "codec/calibration_format.h"
#include "model/llama.h"
#include "model/tokenizer.h"

namespace kdn::cli {

struct CalibrationRun {
  double base_bits = 1.5;  // a value, at the base level
  // Of the text; more takes longer and changes little.
  int tokens_max = 8192;
  // Called with what is done of all, 0 to 1.
  std::function<void(double)> on_progress = [](double) {};
};

// Has the model read `text` and calibrates the transform-coded levels on its
// KV. How exactly each layer's K and V is kept follows from what noise in it
// does to the logits behind it, so the bits go where the model looks.
// INVALID_ARGUMENT when the text is too short.
absl::StatusOr<codec::StoredCalibration> Calibrate(
    const model::Llama& llama, const model::Tokenizer& tokenizer,
    std::string_view text, const CalibrationRun& run);

}  // namespace kdn::cli

#endif  // KDN_CLI_CALIBRATION_RUN_H_
