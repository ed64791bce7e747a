#include "codec/format/rope_fields.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace kdn::codec {
namespace {

// Pairing, scaling, two bytes of zeros, two integers, the doubles.
constexpr size_t kDescriptorBytes = 12 + kRopeDoubles * sizeof(double);

void WriteDescriptor(const RopeSpec& rope, ByteWriter* out) {
  out->Write<uint8_t>(static_cast<uint8_t>(rope.pairing));
  out->Write<uint8_t>(static_cast<uint8_t>(rope.scaling));
  out->Write<uint16_t>(0);
  out->Write<int32_t>(rope.rotary_dim);
  out->Write<int32_t>(rope.original_max_position);
  for (double value :
       {rope.theta, rope.factor, rope.low_freq_factor, rope.high_freq_factor,
        rope.beta_fast, rope.beta_slow, rope.attention_factor}) {
    out->Write<double>(value);
  }
}

absl::StatusOr<RopeSpec> ReadDescriptor(ByteReader* in) {
  RopeSpec rope;
  rope.pairing = static_cast<RopePairing>(in->Read<uint8_t>());
  rope.scaling = static_cast<RopeScaling>(in->Read<uint8_t>());
  if (in->Read<uint16_t>() != 0) {
    return absl::DataLossError(
        "rope descriptor has reserved bytes that are not zero");
  }
  rope.rotary_dim = in->Read<int32_t>();
  rope.original_max_position = in->Read<int32_t>();
  ReadRopeDoubles(in, &rope);
  return rope;
}

// DATA_LOSS unless each descriptor differs from all descriptors before it.
absl::Status CheckDistinct(const std::vector<RopeSpec>& ropes) {
  for (size_t i = 1; i < ropes.size(); ++i) {
    if (std::find(ropes.begin(), ropes.begin() + i, ropes[i]) !=
        ropes.begin() + i) {
      return absl::DataLossError(
          absl::StrCat("rope descriptor ", i, " equals an earlier one"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

RopeTableFields RopeTableOf(const ObjectHeader& header) {
  if (header.layer_ropes.empty()) return {{header.rope}, {}};
  RopeTableFields table;
  for (const RopeSpec& rope : header.layer_ropes) {
    const auto at =
        std::find(table.distinct.begin(), table.distinct.end(), rope);
    table.of_layer.push_back(static_cast<uint8_t>(at - table.distinct.begin()));
    if (at == table.distinct.end()) table.distinct.push_back(rope);
  }
  return table;
}

size_t RopeTableBytes(size_t ropes, int layers) {
  return ropes * kDescriptorBytes + (ropes > 1 ? layers : 0);
}

void WriteRopeTable(const RopeTableFields& table, ByteWriter* out) {
  for (const RopeSpec& rope : table.distinct) WriteDescriptor(rope, out);
  out->Bytes(table.of_layer.data(), table.of_layer.size());
}

absl::StatusOr<std::vector<RopeSpec>> ReadRopeTable(size_t ropes, int layers,
                                                    ByteReader* in) {
  std::vector<RopeSpec> distinct;
  distinct.reserve(ropes);
  for (size_t i = 0; i < ropes; ++i) {
    absl::StatusOr<RopeSpec> rope = ReadDescriptor(in);
    if (!rope.ok()) return rope.status();
    distinct.push_back(*rope);
  }
  if (absl::Status s = CheckDistinct(distinct); !s.ok()) return s;
  if (ropes == 1) return distinct;
  std::vector<RopeSpec> of_layer;
  of_layer.reserve(layers);
  size_t used = 0;
  for (int layer = 0; layer < layers; ++layer) {
    const size_t index = in->Read<uint8_t>();
    if (index > used || index >= ropes) {
      return absl::DataLossError(
          absl::StrCat("layer ", layer, " names rope ", index, " of ", ropes,
                       ", the layers before it use ", used));
    }
    used = std::max(used, index + 1);
    of_layer.push_back(distinct[index]);
  }
  if (used == ropes) return of_layer;
  return absl::DataLossError(
      absl::StrCat("layers use ", used, " of ", ropes, " ropes"));
}

void ReadRopeDoubles(ByteReader* in, RopeSpec* rope) {
  for (double* value : {&rope->theta, &rope->factor, &rope->low_freq_factor,
                        &rope->high_freq_factor, &rope->beta_fast,
                        &rope->beta_slow, &rope->attention_factor}) {
    *value = in->Read<double>();
  }
}

}  // namespace kdn::codec
