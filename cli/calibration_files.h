#ifndef KDN_CLI_CALIBRATION_FILES_H_
#define KDN_CLI_CALIBRATION_FILES_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "codec/calibration.h"

namespace kdn::cli {

struct CalibrationFile {
  std::string path;
  std::shared_ptr<const codec::Calibration> calibration;
};

// Every *.kdncal file of the directory, by name. The first that is none is an
// error that names it and says why, as is a directory that cannot be read.
absl::StatusOr<std::vector<CalibrationFile>> LoadCalibrations(
    const std::string& directory);

}  // namespace kdn::cli

#endif  // KDN_CLI_CALIBRATION_FILES_H_
