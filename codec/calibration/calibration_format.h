#ifndef KDN_CODEC_CALIBRATION_CALIBRATION_FORMAT_H_
#define KDN_CODEC_CALIBRATION_CALIBRATION_FORMAT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "codec/calibration/calibration.h"
#include "kv/model_spec.h"

namespace kdn::codec {

// The bytes of a calibration, as docs/formats.md describes them. Its id is
// their SHA-256.
inline constexpr uint16_t kCalibrationFormat = 1;

// What one stream's part of a file says. The analysis is not in it: it is
// computed from the rest, so the two cannot disagree.
struct StoredTransform {
  std::vector<float> mean;        // dim
  float scale = 1.0f;             // above 0
  std::vector<int8_t> synthesis;  // [dim][components]
  std::vector<std::array<BandStep, kLadderSteps>> bands;
};

struct StoredCalibration {
  ModelFingerprint model;
  Calibration::Geometry geometry;
  // 256 frequencies each.
  std::vector<std::array<uint16_t, FormatCoder::kSymbols>> tables;
  std::vector<StoredTransform> streams;  // [layer][K|V][head group]
};

// REQUIRES: what MakeCalibration asks for.
std::vector<std::byte> WriteCalibration(const StoredCalibration& stored);

// What a file says. DATA_LOSS, saying what is wrong, for anything that
// WriteCalibration does not write: what comes back it writes to equal bytes.
// Allocates in proportion to `bytes`.
absl::StatusOr<StoredCalibration> ReadCalibration(
    absl::Span<const std::byte> bytes);

// The calibration of a file. DATA_LOSS as for ReadCalibration, INVALID_ARGUMENT
// for a transform that cannot be undone. Allocates in proportion to `bytes`,
// and 19 KB for each of at most 256 tables.
absl::StatusOr<std::shared_ptr<const Calibration>> ParseCalibration(
    absl::Span<const std::byte> bytes);

// What Calibration::Create makes of the parts. The id is the caller's.
absl::StatusOr<std::shared_ptr<const Calibration>> MakeCalibration(
    const CalibrationId& id, const StoredCalibration& stored);

// The transform with its analysis. INVALID_ARGUMENT when two columns of the
// synthesis depend on each other; columns of zeros are not used.
absl::StatusOr<StreamTransform> MakeTransform(const StoredTransform& stored);

}  // namespace kdn::codec

#endif  // KDN_CODEC_CALIBRATION_CALIBRATION_FORMAT_H_
