#include "codec/cuda/chunk_request.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "codec/format/header_check.h"
#include "codec/format/stream_layout.h"
#include "kv/check.h"

namespace kdn::codec::cuda {
namespace {

absl::Status CheckSlice(const ChunkRequest& request) {
  const ObjectHeader& header = request.index->header();
  const KvSlice& slice = request.slice;
  if (!IsTransformCoded(request.level) || !header.levels.Has(request.level)) {
    return absl::InvalidArgumentError(
        absl::StrCat("level ", static_cast<int>(request.level),
                     " is not in the object, or a GPU cannot decode it"));
  }
  if (slice.layer_begin < 0 || slice.layer_begin >= slice.layer_end ||
      slice.layer_end > header.shape.layers || slice.head_begin < 0 ||
      slice.head_begin >= slice.head_end ||
      slice.head_end > header.shape.kv_heads) {
    return absl::InvalidArgumentError(absl::StrCat(
        "layers [", slice.layer_begin, ", ", slice.layer_end, ") and heads [",
        slice.head_begin, ", ", slice.head_end,
        "): expected non-empty ranges inside ", header.shape.layers,
        " layers and ", header.shape.kv_heads, " heads"));
  }
  return absl::OkStatus();
}

absl::Status CheckPositions(const ChunkRequest& request) {
  const size_t tokens = request.index->header().positions.size();
  if (request.positions.size() != tokens ||
      *std::min_element(request.positions.begin(), request.positions.end()) <
          0) {
    return absl::InvalidArgumentError(
        absl::StrCat(request.positions.size(), " positions for ", tokens,
                     " tokens, or a negative position"));
  }
  return absl::OkStatus();
}

absl::Status CheckPages(const ChunkRequest& request, const KvPages& pages) {
  KvShape shape = request.index->header().shape;
  shape.layers = request.slice.layers();
  shape.kv_heads = request.slice.heads();
  return Validate(pages, shape);
}

// The built-in calibration has the id zero and is for any number of layers.
absl::Status CheckCalibration(const ObjectHeader& header,
                              const Calibration& calibration) {
  const int heads = GridOf(header).HeadsOf(KvPart::kK, Level::kBase);
  const bool fits = calibration.id().is_zero()
                        ? calibration.Of(0, KvPart::kK, 0).dim() ==
                              heads * header.shape.head_dim
                        : calibration.geometry() == GeometryOf(header.shape) &&
                              calibration.joint_heads() == header.joint_heads;
  if (header.calibration == calibration.id() && fits) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "the object was coded with calibration ", ShortHex(header.calibration),
      ", the batch is for ", ShortHex(calibration.id())));
}

}  // namespace

absl::Status CheckRequest(const ChunkRequest& request,
                          const Calibration& calibration) {
  KDN_CHECK(request.index != nullptr, "a request has an index");
  if (absl::Status s = CheckSupported(request.index->header()); !s.ok()) {
    return s;
  }
  if (absl::Status s = CheckSlice(request); !s.ok()) return s;
  if (absl::Status s = CheckPositions(request); !s.ok()) return s;
  const auto* pages = std::get_if<KvPages>(&request.places);
  if (pages != nullptr) {
    if (absl::Status s = CheckPages(request, *pages); !s.ok()) return s;
  }
  if (request.object.size() != request.index->object_bytes()) {
    return absl::DataLossError(
        absl::StrCat("the object has ", request.object.size(),
                     " bytes, expected ", request.index->object_bytes()));
  }
  return CheckCalibration(request.index->header(), calibration);
}

std::byte* BaseOf(const ChunkRequest& request, int layer, KvPart part,
                  int head) {
  if (const auto* pages = std::get_if<KvPages>(&request.places)) {
    const auto& layers = part == KvPart::kK ? pages->keys : pages->values;
    return layers[layer] + head * pages->head_stride;
  }
  const auto& places = std::get<StridedPlaces>(request.places);
  return places.base + layer * places.strides.layer +
         static_cast<int64_t>(part) * places.strides.part +
         head * places.strides.head;
}

}  // namespace kdn::codec::cuda
