#include "codec/format/header_check.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "codec/format/rope_fields.h"
#include "codec/format/sections.h"
#include "codec/format/stream_layout.h"

namespace kdn::codec {
namespace {

absl::Status CheckBound(absl::string_view field, int value, int largest) {
  if (value >= 1 && value <= largest) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, ", expected 1 to ", largest));
}

// Validate(header.identity) checks the token ids themselves.
absl::Status CheckTokens(const ObjectHeader& header) {
  const size_t tokens = header.shape.tokens;
  if (header.identity.tokens.size() != tokens ||
      header.positions.size() != tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("shape has ", tokens, " tokens, but there are ",
                     header.identity.tokens.size(), " token ids and ",
                     header.positions.size(), " positions"));
  }
  const auto lowest =
      std::min_element(header.positions.begin(), header.positions.end());
  if (*lowest < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("position of token ", lowest - header.positions.begin(),
                     " is ", *lowest, ", expected at least 0"));
  }
  return absl::OkStatus();
}

absl::Status CheckLevels(const ObjectHeader& header) {
  if (header.levels.empty()) {
    return absl::InvalidArgumentError("the object would hold no level");
  }
  if (header.levels != header.levels.WithRefined()) {
    return absl::InvalidArgumentError(
        "the object would hold a level without the levels that it refines");
  }
  if (header.joint_heads > 0 && header.calibration.is_zero()) {
    return absl::InvalidArgumentError(
        "the built-in calibration does not join K and V");
  }
  if (!HasTransformCoded(header.levels)) {
    if (header.calibration.is_zero()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        "the object names a calibration that none of its levels uses");
  }
  return CheckBound(
      "head_dim of a transform-coded level",
      std::max(header.shape.dim(KvPart::kK), header.shape.dim(KvPart::kV)),
      kTransformDimMax);
}

absl::Status CheckRopes(const ObjectHeader& header) {
  if (absl::Status s = Validate(header.rope, header.shape.head_dim); !s.ok()) {
    return s;
  }
  if (header.layer_ropes.empty()) return absl::OkStatus();
  if (header.layer_ropes.size() != static_cast<size_t>(header.shape.layers) ||
      header.layer_ropes.front() != header.rope) {
    return absl::InvalidArgumentError(absl::StrCat(
        "layer_ropes has ", header.layer_ropes.size(), " ropes for ",
        header.shape.layers, " layers, or its first is not the header's rope"));
  }
  for (const RopeSpec& rope : header.layer_ropes) {
    if (absl::Status s = Validate(rope, header.shape.head_dim); !s.ok()) {
      return s;
    }
  }
  const size_t distinct = RopeTableOf(header).distinct.size();
  if (distinct > 1 && distinct <= kRopesMax) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("layer_ropes has ", distinct,
                   " distinct ropes, expected 2 to ", kRopesMax));
}

}  // namespace

absl::Status CheckShape(const KvShape& shape) {
  for (const absl::Status& status :
       {CheckBound("layers", shape.layers, kLayersMax),
        CheckBound("kv_heads", shape.kv_heads, kKvHeadsMax),
        CheckBound("tokens", shape.tokens, kChunkTokensMax),
        CheckBound("head_dim", shape.head_dim, kHeadDimMax),
        CheckBound("head_dim of V", shape.dim(KvPart::kV), kHeadDimMax)}) {
    if (!status.ok()) return status;
  }
  if (shape.v_head_dim == shape.head_dim) {
    return absl::InvalidArgumentError(
        "v_head_dim equals head_dim: set it to 0");
  }
  if (shape.dtype > Dtype::kFp32) {
    return absl::InvalidArgumentError(absl::StrCat(
        "dtype is ", static_cast<int>(shape.dtype), ", expected 0 to 2"));
  }
  return absl::OkStatus();
}

absl::Status CheckJoint(const StreamGrid& grid, LevelSet levels) {
  if (grid.joint_heads == 0) {
    if (!levels.Has(Level::kArchive)) return absl::OkStatus();
    return absl::InvalidArgumentError(
        "has the level archive, but K and V do not share streams");
  }
  if (!MayJoin(grid.shape, grid.joint_heads)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "joins K and V of ", grid.joint_heads, " of ", grid.shape.kv_heads,
        " heads, which do not divide them or have more than ", kJointDimMax,
        " dimensions"));
  }
  if (HasTransformCoded(levels)) return absl::OkStatus();
  return absl::InvalidArgumentError("joins K and V at levels that it lacks");
}

absl::Status CheckHeader(const ObjectHeader& header) {
  if (absl::Status s = CheckShape(header.shape); !s.ok()) return s;
  if (absl::Status s = CheckJoint(GridOf(header), header.levels); !s.ok()) {
    return s;
  }
  if (absl::Status s = Validate(header.identity); !s.ok()) return s;
  if (header.depth.has_value()) {
    if (absl::Status s = ValidateDepth(header.identity, *header.depth);
        !s.ok()) {
      return s;
    }
  }
  if (absl::Status s = CheckRopes(header); !s.ok()) return s;
  if (absl::Status s = CheckLevels(header); !s.ok()) return s;
  if (absl::Status s = CheckSections(header.sections); !s.ok()) return s;
  return CheckTokens(header);
}

absl::Status CheckSupported(const ObjectHeader& header) {
  if (!header.layer_ropes.empty()) {
    return absl::UnimplementedError(
        "layer_ropes: K turns differently in some layers, which this version "
        "does not code");
  }
  if (header.shape.v_head_dim != 0) {
    return absl::UnimplementedError(absl::StrCat(
        "v_head_dim: V has a head_dim of ", header.shape.v_head_dim, ", K of ",
        header.shape.head_dim, ", which this version does not code"));
  }
  return RefuseCritical(header.sections);
}

}  // namespace kdn::codec
