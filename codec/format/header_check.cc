#include "codec/format/header_check.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "codec/format/stream_layout.h"

namespace kdn::codec {
namespace {

absl::Status CheckBound(absl::string_view field, int value, int largest) {
  if (value >= 1 && value <= largest) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, ", expected 1 to ", largest));
}

// The identity itself is checked by kv.
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
        "the object would hold a level without those it refines");
  }
  if (!HasTransformCoded(header.levels)) {
    if (header.calibration.is_zero()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        "the object names a calibration that none of its levels uses");
  }
  return CheckBound("head_dim of a transform-coded level",
                    header.shape.head_dim, kTransformDimMax);
}

}  // namespace

absl::Status CheckShape(const KvShape& shape) {
  for (const absl::Status& status :
       {CheckBound("layers", shape.layers, kLayersMax),
        CheckBound("kv_heads", shape.kv_heads, kKvHeadsMax),
        CheckBound("tokens", shape.tokens, kChunkTokensMax),
        CheckBound("head_dim", shape.head_dim, kHeadDimMax)}) {
    if (!status.ok()) return status;
  }
  if (shape.dtype > Dtype::kFp32) {
    return absl::InvalidArgumentError(absl::StrCat(
        "dtype is ", static_cast<int>(shape.dtype), ", expected 0 to 2"));
  }
  return absl::OkStatus();
}

absl::Status CheckHeader(const ObjectHeader& header) {
  if (absl::Status s = CheckShape(header.shape); !s.ok()) return s;
  if (absl::Status s = Validate(header.identity); !s.ok()) return s;
  if (absl::Status s = Validate(header.rope, header.shape.head_dim); !s.ok()) {
    return s;
  }
  if (absl::Status s = CheckLevels(header); !s.ok()) return s;
  return CheckTokens(header);
}

}  // namespace kdn::codec
