#ifndef KDN_CODEC_CALIBRATION_CALIBRATION_H_
#define KDN_CODEC_CALIBRATION_CALIBRATION_H_

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "codec/entropy/format_coder.h"
#include "codec/format/object.h"
#include "codec/format/stream_layout.h"
#include "codec/transform/analysis.h"
#include "codec/transform/synthesis.h"
#include "kv/kv_view.h"
#include "kv/model_spec.h"

namespace kdn::codec {

// What the transform-coded levels know of a model before they see a chunk.
//
// The rows of one stream (a layer's K or V, the heads of one group side by
// side) are taken to components
//
//   y = analysis (x - mean),   back by   x = mean + scale * synthesis q
//
// where q is y rounded to integers. The synthesis is made of integers and the
// analysis is computed as its inverse, so every machine that decodes gets the
// same sums, bit for bit. Components come in the order of falling variance, in
// bands of 16, whose values are entropy-coded with static tables.
//
// A value is refined by thirds: q of the finest level is 3 q' + {-1, 0, 1} with
// q' of the level before it. Uniform quantisers whose steps differ by 3 nest
// exactly, so refining costs no rate against coding the finest level at once.

inline constexpr int kBandComponents = 16;
// The finest quantiser's steps in one of the level's: 9, 3, 1.
constexpr int CellOf(int step) { return step == 0 ? 9 : step == 1 ? 3 : 1; }

// How many values one coded symbol holds: the rarer the non-zero, the more.
enum class BandMode : uint8_t {
  kAbsent = 0,  // not coded: nothing is added to what the levels before gave
  kSingle = 1,  // -127 to 127
  kPair = 2,    // two of -7 to 7
  kQuad = 3,    // four of -1 to 1
};

// One band at one level.
struct BandStep {
  BandMode mode = BandMode::kAbsent;
  // Which tables code components 0 to 7 and 8 to 15.
  std::array<uint8_t, 2> tables = {0, 0};
  // A non-zero value lies nearer to zero than the middle of its cell, by this
  // many of the finest steps on average. Below half a cell.
  uint8_t shrink = 0;

  bool operator==(const BandStep&) const = default;
};

// The transform of one stream.
struct StreamTransform {
  // Of each dimension; empty where every chunk brings its own.
  std::vector<float> mean;
  float scale = 1.0f;
  SynthesisMatrix synthesis;
  AnalysisMatrix analysis;  // the left inverse of scale * synthesis
  std::vector<std::array<BandStep, kLadderSteps>> bands;

  int dim() const { return synthesis.dim(); }
  int components() const { return synthesis.components(); }
};

// Immutable once made; shared by all objects that were coded with it.
class Calibration {
 public:
  // What a calibration is for.
  struct Geometry {
    int layers = 0;
    int kv_heads = 0;
    int head_dim = 0;

    bool operator==(const Geometry&) const = default;
  };

  // INVALID_ARGUMENT unless the streams fit the geometry and every table that a
  // band names is there and codes zeros.
  static absl::StatusOr<std::shared_ptr<const Calibration>> Create(
      const CalibrationId& id, const ModelFingerprint& model,
      const Geometry& geometry, std::vector<FormatCoder::Table> tables,
      std::vector<StreamTransform> streams);
  // For a model that was never calibrated: a Hadamard transform that spreads
  // every dimension over all components; each chunk brings its mean and scale.
  // Its id is zero. REQUIRES: head_dim is at most kTransformDimMax.
  static std::shared_ptr<const Calibration> Uncalibrated(
      const Geometry& geometry);

  const CalibrationId& id() const { return id_; }
  // Of the model it was made for; zero for Uncalibrated.
  const ModelFingerprint& model() const { return model_; }
  const Geometry& geometry() const { return geometry_; }
  const std::vector<FormatCoder::Table>& tables() const { return tables_; }
  // REQUIRES: inside the geometry.
  const StreamTransform& Of(int layer, KvPart part, int head_group) const;

 private:
  Calibration() = default;

  CalibrationId id_;
  ModelFingerprint model_;
  Geometry geometry_;
  int groups_ = 0;
  std::vector<FormatCoder::Table> tables_;
  // [layer][K|V][group]; a single one serves all of an uncalibrated model.
  std::vector<StreamTransform> streams_;
};

Calibration::Geometry GeometryOf(const KvShape& shape);

// The calibrations of one process, by id and by model. Thread-safe.
class CalibrationSet {
 public:
  CalibrationSet() = default;
  CalibrationSet(const CalibrationSet&) = delete;
  CalibrationSet& operator=(const CalibrationSet&) = delete;

  // A later one for the same model is what new objects are coded with; the
  // older ones still decode theirs.
  void Add(std::shared_ptr<const Calibration> calibration);
  // What new objects of such a model are coded with: the last that was added
  // for it, else Uncalibrated. Null when the model cannot be transform-coded.
  std::shared_ptr<const Calibration> ForModel(
      const ModelFingerprint& model, const Calibration::Geometry& geometry);
  // What an object was coded with; null when it holds no transform-coded
  // level. FAILED_PRECONDITION, naming the id, when it is not here;
  // DATA_LOSS when it is one for other shapes.
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
  // By heads a group and head_dim: all that the Hadamard transform depends on.
  absl::flat_hash_map<std::pair<int, int>, std::shared_ptr<const Calibration>>
      uncalibrated_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_CALIBRATION_CALIBRATION_H_
