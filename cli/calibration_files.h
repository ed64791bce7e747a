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

// What the names of the files end in that nodes read.
inline constexpr char kCalibrationSuffix[] = ".kdncal";

struct CalibrationFile {
  std::string path;
  std::shared_ptr<const codec::Calibration> calibration;
};

// Errors name the file and say why it cannot be read or is none.
absl::StatusOr<CalibrationFile> LoadCalibration(const std::string& path);

// Every *.kdncal file of the directory, by name. The first that is none is an
// error that names it and says why, as is a directory that cannot be read.
absl::StatusOr<std::vector<CalibrationFile>> LoadCalibrations(
    const std::string& directory);

// Makes or replaces the file: nobody ever sees a part of it under its name.
// UNAVAILABLE, naming it, when it cannot be written.
absl::Status SaveCalibration(absl::Span<const std::byte> bytes,
                             const std::string& path);

}  // namespace kdn::cli

#endif  // KDN_CLI_CALIBRATION_FILES_H_
