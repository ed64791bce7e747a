#include "codec/calibration/calibration.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "codec/calibration/transform_sizes.h"
#include "codec/transform/symbol_bands.h"
#include "kv/check.h"

namespace kdn::codec {
namespace {

// The payload of a status that names a missing calibration.
constexpr char kMissing[] = "kdn/missing-calibration";

absl::Status CheckBandStep(const BandStep& band, int step,
                           absl::Span<const FormatCoder::Table> tables) {
  if (2 * band.shrink >= CellOf(step) && band.shrink != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("a band shrinks values by ", band.shrink,
                     ", expected less than half of ", CellOf(step)));
  }
  if (band.mode == BandMode::kAbsent) return absl::OkStatus();
  for (const uint8_t table : band.tables) {
    if (table >= tables.size()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "a band names table ", table, ", but there are ", tables.size()));
    }
    if (tables[table].frequency(ZeroSymbol(band.mode)) == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("table ", table, " does not code zeros"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckClasses(const StreamTransform& stream,
                          absl::Span<const FormatCoder::Table> tables) {
  if (stream.classes.empty() || stream.classes.size() > kTokenClassesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("a stream has ", stream.classes.size(), " classes"));
  }
  const auto dim = static_cast<size_t>(stream.dim());
  if (stream.classes.size() > 1 && (stream.predictor.linear.size() != dim ||
                                    stream.predictor.square.size() != dim)) {
    return absl::InvalidArgumentError(
        "a stream of several token classes does not predict them");
  }
  int last = -kClassExponentMax - 1;
  for (const TokenClass& token_class : stream.classes) {
    if (token_class.exponent <= last ||
        token_class.exponent > kClassExponentMax) {
      return absl::InvalidArgumentError(
          "the exponents of token classes do not rise, or are too large");
    }
    last = token_class.exponent;
    if (token_class.bands.size() * kBandComponents !=
        static_cast<size_t>(stream.columns())) {
      return absl::InvalidArgumentError(
          absl::StrCat("a token class has ", token_class.bands.size(),
                       " bands for ", stream.columns(), " values"));
    }
    const size_t low_bands = stream.components() / kBandComponents;
    for (size_t i = 0; i < token_class.bands.size(); ++i) {
      const auto& band = token_class.bands[i];
      for (int step = 0; step < kLadderSteps; ++step) {
        if (i >= low_bands && band[step].shrink != 0) {
          return absl::InvalidArgumentError("a band of high parts shrinks");
        }
        if (absl::Status s = CheckBandStep(band[step], step, tables); !s.ok()) {
          return s;
        }
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckStream(const StreamTransform& stream, int dim,
                         absl::Span<const FormatCoder::Table> tables) {
  if (stream.dim() != dim || stream.analysis.dim() != dim ||
      stream.analysis.components() != stream.components() ||
      (!stream.mean.empty() &&
       stream.mean.size() != static_cast<size_t>(dim)) ||
      (!stream.head_scales.empty() &&
       stream.dim() % stream.head_scales.size() != 0) ||
      stream.wide_bands < 0 ||
      stream.wide_bands * kBandComponents > stream.components()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a transform of ", stream.dim(), " dimensions and ",
        stream.components(), " components does not fit streams of ", dim,
        " dimensions, or its parts do not fit each other"));
  }
  return CheckClasses(stream, tables);
}

}  // namespace

Calibration::Geometry GeometryOf(const KvShape& shape) {
  return {shape.layers, shape.kv_heads, shape.head_dim};
}

absl::StatusOr<std::shared_ptr<const Calibration>> Calibration::Create(
    const CalibrationId& id, const ModelFingerprint& model,
    const Geometry& geometry, std::vector<FormatCoder::Table> tables,
    std::vector<StreamTransform> streams, absl::Time created, int joint_heads) {
  std::shared_ptr<Calibration> calibration(new Calibration());
  const TransformSizes sizes = SizesOf(geometry, std::max(joint_heads, 0));
  if (joint_heads < 0 || geometry.kv_heads % sizes.heads != 0 ||
      sizes.dim > kJointDimMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("a calibration joins K and V of ", joint_heads, " of ",
                     geometry.kv_heads, " heads"));
  }
  calibration->joint_heads_ = joint_heads;
  calibration->groups_ = sizes.groups;
  if (streams.size() != sizes.count && !id.is_zero()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the calibration has ", streams.size(),
                     " streams, expected ", sizes.count));
  }
  for (const StreamTransform& stream : streams) {
    if (absl::Status s = CheckStream(stream, sizes.dim, tables); !s.ok())
      return s;
  }
  calibration->id_ = id;
  calibration->model_ = model;
  calibration->geometry_ = geometry;
  calibration->created_ = created;
  calibration->tables_ = std::move(tables);
  calibration->streams_ = std::move(streams);
  return calibration;
}

const StreamTransform& Calibration::Of(int layer, KvPart part,
                                       int head_group) const {
  if (id_.is_zero()) return streams_.front();
  const size_t plane = joint_heads_ > 0 ? static_cast<size_t>(layer)
                                        : 2 * static_cast<size_t>(layer) +
                                              static_cast<size_t>(part);
  const size_t at = plane * groups_ + head_group;
  KDN_CHECK(at < streams_.size(), "no such stream");
  return streams_[at];
}

std::optional<CalibrationId> MissingCalibrationIn(const absl::Status& status) {
  const auto payload = status.GetPayload(kMissing);
  if (!payload) return std::nullopt;
  const std::string bytes(*payload);
  return CalibrationId::FromBytes(
      {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
}

bool IsPreferred(const Calibration& a, const Calibration& b) {
  return std::make_pair(a.created(), a.id()) >
         std::make_pair(b.created(), b.id());
}

void CalibrationSet::Add(std::shared_ptr<const Calibration> calibration) {
  KDN_CHECK(!calibration->id().is_zero(), "a calibration has an id");
  absl::MutexLock lock(&mutex_);
  by_id_[calibration->id()] = calibration;
  std::shared_ptr<const Calibration>& preferred =
      by_model_[calibration->model()];
  if (preferred == nullptr || IsPreferred(*calibration, *preferred)) {
    preferred = std::move(calibration);
  }
}

std::shared_ptr<const Calibration> CalibrationSet::Uncalibrated(
    const Calibration::Geometry& geometry) {
  const std::pair key(
      HeadsPerStream(geometry.kv_heads, geometry.head_dim, Level::kBase),
      geometry.head_dim);
  auto& cached = uncalibrated_[key];
  if (cached == nullptr) cached = Calibration::Uncalibrated(geometry);
  return cached;
}

std::shared_ptr<const Calibration> CalibrationSet::ForModel(
    const ModelFingerprint& model, const Calibration::Geometry& geometry) {
  if (geometry.head_dim > kTransformDimMax) return nullptr;
  absl::MutexLock lock(&mutex_);
  const auto found = by_model_.find(model);
  if (found != by_model_.end() && found->second->geometry() == geometry) {
    return found->second;
  }
  return Uncalibrated(geometry);
}

absl::StatusOr<std::shared_ptr<const Calibration>> CalibrationSet::ForObject(
    const ObjectHeader& header) {
  if (!HasTransformCoded(header.levels)) return nullptr;
  const Calibration::Geometry geometry = GeometryOf(header.shape);
  absl::MutexLock lock(&mutex_);
  if (header.calibration.is_zero()) return Uncalibrated(geometry);
  const auto found = by_id_.find(header.calibration);
  if (found == by_id_.end()) {
    absl::Status status = absl::FailedPreconditionError(absl::StrCat(
        "the object was coded with calibration ", ShortHex(header.calibration),
        ", which neither this node nor a live node that it asked has: start "
        "the nodes that were up when the chunk was stored, or store the "
        "calibration again with `kdn codec store`"));
    const auto& bytes = header.calibration.bytes();
    status.SetPayload(kMissing, absl::Cord(absl::string_view(
                                    reinterpret_cast<const char*>(bytes.data()),
                                    bytes.size())));
    return status;
  }
  if (found->second->geometry() != geometry ||
      found->second->joint_heads() != header.joint_heads) {
    return absl::DataLossError(
        absl::StrCat("calibration ", ShortHex(header.calibration),
                     " is for a model of another shape"));
  }
  return found->second;
}

}  // namespace kdn::codec
