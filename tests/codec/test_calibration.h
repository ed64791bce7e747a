#ifndef KDN_TESTS_CODEC_TEST_CALIBRATION_H_
#define KDN_TESTS_CODEC_TEST_CALIBRATION_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "codec/calibration/calibration.h"

namespace kdn::codec {

// What Calibration::Create takes, to be broken by a test.
struct CalibrationParts {
  CalibrationId id;
  ModelFingerprint model;
  Calibration::Geometry geometry;
  std::vector<RansTable> tables;
  std::vector<StreamTransform> streams;

  absl::StatusOr<std::shared_ptr<const Calibration>> Create() const {
    return Calibration::Create(id, model, geometry, tables, streams);
  }
};

// As a model's file would bring it: means of its own, bands in every mode,
// some of them absent at some levels, tables that lack symbols. For rows of
// about standard normal values. `id` is the id's first byte.
CalibrationParts PartsOf(const Calibration::Geometry& geometry, uint8_t id = 1);
std::shared_ptr<const Calibration> MadeCalibration(
    const Calibration::Geometry& geometry, uint8_t id = 1);

}  // namespace kdn::codec

#endif  // KDN_TESTS_CODEC_TEST_CALIBRATION_H_
