#ifndef KDN_CLI_CALIBRATION_RUN_H_
#define KDN_CLI_CALIBRATION_RUN_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "codec/calibration/calibration_format.h"
#include "model/llama.h"
#include "model/tokenizer.h"

namespace kdn::cli {

struct CalibrationRun {
  double base_bits = 1.5;  // bits per value to aim at, at the base level
  // Called with the share of the work that is done, 0 to 1, and the number of
  // tokens that the model has read so far.
  std::function<void(double, int)> on_progress = [](double, int) {};
};

// The windows of a text. Some are held out, to measure the levels on KV that
// the calibration has not seen.
struct CalibrationText {
  std::vector<std::vector<int32_t>> windows;
  std::vector<std::vector<int32_t>> held_out;

  size_t tokens() const;  // of `windows`
};
// Holds out kHeldOutWindows of many windows, and none of few.
CalibrationText HoldOut(std::vector<std::vector<int32_t>> windows);
inline constexpr int kHeldOutWindows = 2;
// Fewer windows than this give larger errors; a calibration reads 32 unless the
// user wants another number.
inline constexpr int kWindowsEnough = 30;
inline constexpr int kWindows = 32;

// The directory of the texts that scripts/texts fetches to calibrate on; empty
// if they are not there.
std::string StandardTexts();

// The fewest tokens of text that Calibrate accepts. INVALID_ARGUMENT when the
// levels cannot code KV of this model.
absl::StatusOr<size_t> TokensToCalibrate(const model::Llama& llama);

// The tokens of one window. The first part is context: its KV is the sample to
// calibrate on. The tokens behind the context show what an error in that KV
// does to the logits.
inline constexpr size_t kCalibrationWindow = 1024 + 64;
// The tokens behind the context of a window of `size` tokens.
constexpr size_t BehindTokens(size_t size) {
  return std::min<size_t>(64, size / 4);
}

// Windows of the texts, spread evenly over each text and over the texts in
// proportion to their lengths: `count`, or fewer when the texts are too short,
// but one for each text at least. A text shorter than a window is one window.
// Texts without tokens are left out.
std::vector<std::vector<int32_t>> CalibrationWindows(
    absl::Span<const std::vector<int32_t>> texts, int count);
// The same for the files and directories `paths`. The files of a directory are
// one text. Errors name the file.
absl::StatusOr<std::vector<std::vector<int32_t>>> CalibrationWindows(
    const std::vector<std::string>& paths, const model::Tokenizer& tokenizer,
    int count);

// Lets the model read windows of text and calibrates the transform-coded levels
// on the resulting KV. The calibration spends more bits on a layer's K or V
// when noise in it changes the logits of later tokens more, and on the
// directions of a row that attention reads more. On one machine, equal windows
// give equal calibrations; the caller sets the time. INVALID_ARGUMENT when the
// tokens are too few, or the levels cannot code KV of this model.
absl::StatusOr<codec::StoredCalibration> Calibrate(
    const model::Llama& llama, absl::Span<const std::vector<int32_t>> windows,
    const CalibrationRun& run);

}  // namespace kdn::cli

#endif  // KDN_CLI_CALIBRATION_RUN_H_
