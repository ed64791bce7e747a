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
  int joint_heads = 0;

  absl::StatusOr<std::shared_ptr<const Calibration>> Create() const {
    return Calibration::Create(id, model, geometry, tables, streams, created,
                               joint_heads);
  }
};

// A calibration as a model's file may have it: with means, bands in every mode,
// bands that some levels do not code, and tables that lack symbols. It suits
// rows of about standard normal values. `id` is the first byte of its id.
CalibrationParts PartsOf(const Calibration::Geometry& geometry, uint8_t id = 1);
std::shared_ptr<const Calibration> MadeCalibration(
    const Calibration::Geometry& geometry, uint8_t id = 1);

// The same with joint streams: K and V of `joint_heads` heads share one. Tokens
// are of five classes, each head has a scale of its own, and the first
// `wide_bands` bands are wide.
CalibrationParts JointParts(const Calibration::Geometry& geometry,
                            int joint_heads, uint8_t id = 2,
                            int wide_bands = 1);
std::shared_ptr<const Calibration> MadeJointCalibration(
    const Calibration::Geometry& geometry, int joint_heads, uint8_t id = 2);

}  // namespace kdn::codec

#endif  // KDN_TESTS_CODEC_TEST_CALIBRATION_H_
