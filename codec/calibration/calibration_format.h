#ifndef KDN_CODEC_CALIBRATION_CALIBRATION_FORMAT_H_
#define KDN_CODEC_CALIBRATION_CALIBRATION_FORMAT_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "codec/calibration/calibration.h"
#include "kv/model_spec.h"

namespace kdn::codec {

// The newest version of the format of calibration files, which docs/formats.md
// describes. It is for joint streams. Other files have version 2 or, without
// information, version 1, which has no place for any. The id of a calibration
// is the SHA-256 of its file.
inline constexpr uint16_t kCalibrationFormat = 3;

// The part of a file that describes one stream. It does not have the analysis,
// which is computed from the synthesis, so that the two cannot disagree.
struct StoredTransform {
  std::vector<float> mean;              // dim
  float scale = 1.0f;                   // above 0
  std::vector<float> head_scales = {};  // above 0; as in StreamTransform
  std::vector<int8_t> synthesis;        // [dim][components]
  // As in StreamTransform.
  int wide_bands = 0;
  std::vector<TokenClass> classes = std::vector<TokenClass>(1);
  StepPredictor predictor = {};
};

// What a file says about itself. No decoder needs it.
struct CalibrationInfo {
  // When the calibration was made, in whole seconds. 1970: not known, as in
  // files of version 1.
  absl::Time created = absl::UnixEpoch();
  // Entries that this version of KDN does not know, by name. They are kept, so
  // that writing a file again gives the same bytes.
  std::map<std::string, std::string> others;

  bool empty() const { return created == absl::UnixEpoch() && others.empty(); }
  bool operator==(const CalibrationInfo&) const = default;
};

// The contents of a file.
struct StoredCalibration {
  ModelFingerprint model;
  Calibration::Geometry geometry;
  // The 256 frequencies of each table.
  std::vector<std::array<uint16_t, FormatCoder::kSymbols>> tables;
  // [layer][K|V][head group], or [layer][head group] if K and V share streams.
  std::vector<StoredTransform> streams;
  int joint_heads = 0;  // as in Calibration
  CalibrationInfo info;
};

// The bytes of a file. REQUIRES: MakeCalibration accepts `stored`, and
// `info.created` is not before 1970.
std::vector<std::byte> WriteCalibration(const StoredCalibration& stored);

// The contents of a file. DATA_LOSS, with the reason, for bytes that
// WriteCalibration never writes; so writing the result gives the same bytes
// again. Allocates in proportion to `bytes`.
absl::StatusOr<StoredCalibration> ReadCalibration(
    absl::Span<const std::byte> bytes);

// The calibration of a file. DATA_LOSS as for ReadCalibration, INVALID_ARGUMENT
// as for MakeCalibration. Allocates in proportion to `bytes`, and 19 KB for
// each of at most 256 tables.
absl::StatusOr<std::shared_ptr<const Calibration>> ParseCalibration(
    absl::Span<const std::byte> bytes);

// The calibration with these contents. The caller chooses the id.
// INVALID_ARGUMENT as for MakeTransform and Calibration::Create.
absl::StatusOr<std::shared_ptr<const Calibration>> MakeCalibration(
    const CalibrationId& id, const StoredCalibration& stored);

// The transform of a stream, with its analysis. Columns of zeros in the
// synthesis are ignored. INVALID_ARGUMENT when the other columns are linearly
// dependent, so that there is no inverse.
absl::StatusOr<StreamTransform> MakeTransform(const StoredTransform& stored);

}  // namespace kdn::codec

#endif  // KDN_CODEC_CALIBRATION_CALIBRATION_FORMAT_H_
