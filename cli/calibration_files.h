#ifndef KDN_CLI_CALIBRATION_FILES_H_
#define KDN_CLI_CALIBRATION_FILES_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "codec/calibration/calibration.h"

namespace kdn::cli {

// Nodes read the files whose names end in this.
inline constexpr char kCalibrationSuffix[] = ".kdncal";

struct CalibrationFile {
  std::string path;
  std::vector<std::byte> bytes;
  std::shared_ptr<const codec::Calibration> calibration;
};

// Reads one calibration. Errors name the file and say why it cannot be read or
// is not a calibration.
absl::StatusOr<CalibrationFile> LoadCalibration(const std::string& path);

// Reads every *.kdncal file of the directory, in the order of their names.
// Fails at the first file that is not a calibration; the error names the file
// and the reason.
// INVALID_ARGUMENT, naming the directory, when the directory cannot be read.
absl::StatusOr<std::vector<CalibrationFile>> LoadCalibrations(
    const std::string& directory);

// Creates or replaces the file at once: a reader of `path` sees the old file or
// the whole new one. UNAVAILABLE, naming the file, when it cannot be written.
absl::Status SaveCalibration(absl::Span<const std::byte> bytes,
                             const std::string& path);

}  // namespace kdn::cli

#endif  // KDN_CLI_CALIBRATION_FILES_H_
