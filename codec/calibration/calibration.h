#ifndef KDN_CODEC_CALIBRATION_CALIBRATION_H_
#define KDN_CODEC_CALIBRATION_CALIBRATION_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "codec/entropy/format_coder.h"
#include "codec/format/object.h"
#include "codec/format/stream_layout.h"
#include "codec/transform/analysis.h"
#include "codec/transform/synthesis.h"
#include "kv/kv_view.h"
#include "kv/model_spec.h"

namespace kdn::codec {

// Calibrations: what the transform-coded levels know about a model before they
// see a chunk.
//
// An encoder turns the rows x of one stream (a layer's K or V, with the heads
// of one group side by side) into components y, and a decoder turns them back
// into rows:
//
//   y = analysis (x - mean),   x = mean + scale * synthesis q
//
// where q is y rounded to integers. The synthesis has integers only, so every
// machine decodes to the same sums, bit for bit; the analysis is computed as
// the left inverse of scale * synthesis. The components are in the order of
// falling variance. Bands of 16 components are entropy-coded with static
// tables.
//
// A joint stream has K and V of its heads side by side. Its tokens are of
// classes: a token that attention reads much has smaller steps, and one that
// attention hardly reads has larger steps.
//
// A component that varies by many cells is wide: its value is kHighRadix * h +
// l, in base cells, where h and l are coded, refined and decoded like two
// components. So all numbers stay bytes.
//
// Each level refines the values of the level before by thirds: q is 3 q' - 1, 3
// q' or 3 q' + 1, where q' is the value of the level before. Uniform quantisers
// with steps that differ by a factor of 3 nest exactly, so refining takes no
// more bits than coding the finest level at once.

inline constexpr int kBandComponents = 16;
// The width of a level's quantiser cells, in steps of the finest quantiser: 9,
// 3, 1.
constexpr int CellOf(int step) { return step == 0 ? 9 : step == 1 ? 3 : 1; }

// What one high part of a wide component is worth, in base cells. Odd, so that
// a low part is at most kHighRadix / 2 cells, and 9 times that and the
// refinements fit a byte.
inline constexpr int kHighRadix = 27;
// The largest high part: 9 times this fits a byte.
inline constexpr int kHighMax = 14;

// How many values one symbol holds: more values where non-zero values are
// rarer.
enum class BandMode : uint8_t {
  kAbsent = 0,  // not coded: the level does not refine the band
  kSingle = 1,  // one of -127 to 127
  kPair = 2,    // two of -7 to 7
  kQuad = 3,    // four of -1 to 1
};

// One band at one level.
struct BandStep {
  BandMode mode = BandMode::kAbsent;
  // The indices of the tables that code components 0 to 7 and 8 to 15.
  std::array<uint8_t, 2> tables = {0, 0};
  // How far a non-zero value lies, on average, from the middle of its cell
  // towards zero, in the finest steps. Less than half a cell.
  uint8_t shrink = 0;

  bool operator==(const BandStep&) const = default;
};

// How the tokens of one class are coded.
struct TokenClass {
  // The steps of the class are 2^exponent times as large as the transform's.
  int exponent = 0;
  // First the bands of all components, then those of the high parts.
  std::vector<std::array<BandStep, kLadderSteps>> bands;

  bool operator==(const TokenClass&) const = default;
};
inline constexpr int kTokenClassesMax = 8;
// The classes that the tokens of one stream may have.
inline constexpr int kStreamClasses = 4;
inline constexpr int kClassExponentMax = 8;  // in magnitude
// How many classes later than at base the classes of a stream may begin: at
// archive, each token is one class coarser.
inline constexpr int kCoarserMax = 1;

// Predicts from a row how large the steps of the token should be: the binary
// logarithm of the factor is constant + linear' z + square' z^2, where z is the
// difference of the row to the mean. Only encoders use it.
struct StepPredictor {
  std::vector<float> linear;  // [dim]
  std::vector<float> square;  // [dim]
  float constant = 0.0f;

  bool operator==(const StepPredictor&) const = default;
};

// The transform of one stream.
struct StreamTransform {
  // The mean of each dimension. Empty if every stream has a mean and a scale of
  // its own.
  std::vector<float> mean;
  float scale = 1.0f;
  // Of a joint stream: the scale of each head's K, then of each head's V, in
  // place of `scale`. K and V differ much in size.
  std::vector<float> head_scales = {};
  SynthesisMatrix synthesis;
  AnalysisMatrix analysis;  // the left inverse of scale * synthesis
  // The leading bands whose components are wide.
  int wide_bands = 0;
  // One, or the classes of a joint stream, with rising exponents.
  std::vector<TokenClass> classes = std::vector<TokenClass>(1);
  // Of a joint stream.
  StepPredictor predictor = {};

  int dim() const { return synthesis.dim(); }
  int components() const { return synthesis.components(); }
  // The scale of a head's dimensions.
  float ScaleOf(size_t head) const {
    return head_scales.empty() ? scale : head_scales[head];
  }
  // The coded values of a token: its components, then the high parts.
  int columns() const { return components() + wide_bands * kBandComponents; }
};

// The transforms and tables of one model. Immutable; all objects that were
// coded with it share it.
class Calibration {
 public:
  // The shape of the models that a calibration is for.
  struct Geometry {
    int layers = 0;
    int kv_heads = 0;
    int head_dim = 0;

    bool operator==(const Geometry&) const = default;
  };

  // `streams` is [layer][K|V][head group], or [layer][head group] if K and V of
  // `joint_heads` heads share a stream. INVALID_ARGUMENT unless the streams fit
  // the geometry, every table that a band names exists and codes zeros, and
  // every shrink is below half a cell.
  static absl::StatusOr<std::shared_ptr<const Calibration>> Create(
      const CalibrationId& id, const ModelFingerprint& model,
      const Geometry& geometry, std::vector<FormatCoder::Table> tables,
      std::vector<StreamTransform> streams,
      absl::Time created = absl::UnixEpoch(), int joint_heads = 0);
  // The built-in calibration, for models that were never calibrated: a Hadamard
  // transform, which spreads every dimension over all components. Each stream
  // has a mean and a scale of its own. The id is zero. REQUIRES: head_dim is at
  // most kTransformDimMax.
  static std::shared_ptr<const Calibration> Uncalibrated(
      const Geometry& geometry);

  const CalibrationId& id() const { return id_; }
  // The model that the calibration was made for; zero for Uncalibrated.
  const ModelFingerprint& model() const { return model_; }
  const Geometry& geometry() const { return geometry_; }
  // When the calibration was made; 1970 if its file does not say.
  absl::Time created() const { return created_; }
  const std::vector<FormatCoder::Table>& tables() const { return tables_; }
  // The heads whose K and V share a stream; 0 if none do.
  int joint_heads() const { return joint_heads_; }
  // The transform of one stream. REQUIRES: the stream is inside the geometry.
  const StreamTransform& Of(int layer, KvPart part, int head_group) const;

 private:
  Calibration() = default;

  CalibrationId id_;
  ModelFingerprint model_;
  Geometry geometry_;
  absl::Time created_ = absl::UnixEpoch();
  int joint_heads_ = 0;
  int groups_ = 0;
  std::vector<FormatCoder::Table> tables_;
  // [layer][K|V][group], or [layer][group] if K and V share them; Uncalibrated
  // has a single transform for all streams.
  std::vector<StreamTransform> streams_;
};

Calibration::Geometry GeometryOf(const KvShape& shape);

// Whether new objects of a model are coded with `a` rather than with `b`: the
// calibration that was made later, or else the one with the larger id. So all
// nodes choose alike, in whatever order the calibrations reached them.
bool IsPreferred(const Calibration& a, const Calibration& b);

// The calibration that `status` of CalibrationSet::ForObject says is missing.
std::optional<CalibrationId> MissingCalibrationIn(const absl::Status& status);

// The calibrations of one process, by id and by model. Thread-safe.
class CalibrationSet {
 public:
  CalibrationSet() = default;
  CalibrationSet(const CalibrationSet&) = delete;
  CalibrationSet& operator=(const CalibrationSet&) = delete;

  // Adds a calibration. New objects of a model are coded with the calibration
  // that IsPreferred to the others; the others still decode their objects.
  void Add(std::shared_ptr<const Calibration> calibration);
  // The calibration for new objects of a model: the preferred one of the model,
  // if it fits the geometry, or else Uncalibrated. Null when the model cannot
  // be transform-coded, because it has too many dimensions.
  std::shared_ptr<const Calibration> ForModel(
      const ModelFingerprint& model, const Calibration::Geometry& geometry);
  // The calibration that an object was coded with; null when the object has no
  // transform-coded level. FAILED_PRECONDITION, for MissingCalibrationIn, when
  // the calibration was not added; DATA_LOSS when it is for another
  // geometry.
  absl::StatusOr<std::shared_ptr<const Calibration>> ForObject(
      const ObjectHeader& header);

 private:
  std::shared_ptr<const Calibration> Uncalibrated(
      const Calibration::Geometry& geometry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  absl::flat_hash_map<CalibrationId, std::shared_ptr<const Calibration>> by_id_
      ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<ModelFingerprint, std::shared_ptr<const Calibration>>
      by_model_ ABSL_GUARDED_BY(mutex_);
  // By heads per group and head_dim: the Hadamard transform depends on nothing
  // else.
  absl::flat_hash_map<std::pair<int, int>, std::shared_ptr<const Calibration>>
      uncalibrated_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_CALIBRATION_CALIBRATION_H_
