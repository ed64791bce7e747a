#include "tests/codec/golden/golden_digests.h"

#include <algorithm>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "codec/decoder.h"
#include "codec/format/header_check.h"
#include "codec/format/stream_layout.h"
#include "kv/check.h"
#include "kv/digest.h"
#include "tests/codec/test_chunk.h"

namespace kdn::codec {
namespace {

// The digest of the rows, [layer][K|V][token][head][dim], that a level decodes
// to at `positions`.
std::string RowsDigest(const ObjectIndex& index,
                       absl::Span<const std::byte> object,
                       std::shared_ptr<const Calibration> calibration,
                       Level level, absl::Span<const int32_t> positions,
                       Isa isa) {
  const KvShape& shape = index.header().shape;
  const auto decoder =
      ObjectDecoder::Create(&index, std::move(calibration), positions, isa);
  KDN_CHECK(decoder.ok(), "a golden object can be decoded");
  KvBuffer rows(shape, Layout::kTokenMajor);
  for (int layer = 0; layer < shape.layers; ++layer) {
    KDN_CHECK(decoder
                  ->DecodeLayerOf(object, level, layer, 0, shape.kv_heads,
                                  rows.view().Layer(layer))
                  .ok(),
              "a golden object decodes");
  }
  return Sha256Text(rows.bytes().first(shape.bytes()));
}

std::vector<int32_t> MovedPositions(std::vector<int32_t> positions) {
  std::reverse(positions.begin(), positions.end());
  for (int32_t& position : positions) position = 3 * position + 1234;
  return positions;
}

}  // namespace

std::vector<std::byte> ReadWholeFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  KDN_CHECK(file.good(), "the golden file is there");
  const std::string text((std::istreambuf_iterator<char>(file)),
                         std::istreambuf_iterator<char>());
  const auto* const bytes = reinterpret_cast<const std::byte*>(text.data());
  return {bytes, bytes + text.size()};
}

std::string Sha256Text(absl::Span<const std::byte> bytes) {
  return HexOf(
      Sha256Of({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}));
}

std::vector<std::string> DigestsOf(absl::Span<const std::byte> object,
                                   CalibrationSet* calibrations, Isa isa) {
  const auto index = ObjectIndex::Parse(object, object.size());
  KDN_CHECK(index.ok(), "a golden object parses");
  KDN_CHECK(VerifyObject(*index, object).ok(), "a golden object is whole");
  const ObjectHeader& header = index->header();
  if (!CheckSupported(header).ok()) {
    return {absl::StrCat("object ", Sha256Text(object))};
  }
  const auto calibration = calibrations->ForObject(header);
  KDN_CHECK(calibration.ok(), "a golden object's calibration is beside it");
  std::vector<std::string> lines = {
      absl::StrCat("object ", Sha256Text(object))};
  for (const Level level : LevelsOf(header.levels)) {
    const std::string name(Name(level));
    const auto add = [&](const char* where, std::vector<int32_t> positions) {
      lines.push_back(absl::StrCat(
          name, " ", where, " ",
          RowsDigest(*index, object, *calibration, level, positions, isa)));
    };
    if (level == Level::kLossless || header.rope.rotary_dim == 0) {
      add("stored", header.positions);
      add("moved", MovedPositions(header.positions));
    }
    add("origin", std::vector<int32_t>(header.positions.size(), 0));
  }
  return lines;
}

}  // namespace kdn::codec
