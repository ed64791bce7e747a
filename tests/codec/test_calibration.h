#ifndef KDN_TESTS_CODEC_TEST_CALIBRATION_H_
#define KDN_TESTS_CODEC_TEST_CALIBRATION_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "codec/calibration/calibration.h"

namespace kdn::codec {

// The arguments of Calibration::Create, for tests to change.
struct CalibrationParts {
  CalibrationId id;
  ModelFingerprint model;
  Calibration::Geometry geometry;
  std::vector<RansTable> tables;
  std::vector<StreamTransform> streams;
  absl::Time created = absl::UnixEpoch();

  absl::StatusOr<std::shared_ptr<const Calibration>> Create() const {
    return Calibration::Create(id, model, geometry, tables, streams, created);
  }
};

// A calibration as a model's file may have it: with means, bands in every mode,
// bands that some levels do not code, and tables that lack symbols. It suits
// rows of about standard normal values. `id` is the first byte of its id.
CalibrationParts PartsOf(const Calibration::Geometry& geometry, uint8_t id = 1);
std::shared_ptr<const Calibration> MadeCalibration(
    const Calibration::Geometry& geometry, uint8_t id = 1);

}  // namespace kdn::codec

#endif  // KDN_TESTS_CODEC_TEST_CALIBRATION_H_
