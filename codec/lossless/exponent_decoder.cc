#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "codec/format/byte_io.h"
#include "codec/lossless/exponent_coding.h"
#include "codec/lossless/exponent_split.h"
#include "kv/check.h"

namespace kdn::codec {
namespace {

// Bytes that are checked at a time: one round of the interleaved CRC.
constexpr size_t kCheckedBytes = 3072;

// All zero if the last symbol is past 255. Table::Create checks the sum.
std::array<uint16_t, FormatCoder::kSymbols> ReadFrequencies(
    ByteReader& reader) {
  std::array<uint16_t, FormatCoder::kSymbols> frequencies{};
  const size_t first = reader.Read<uint8_t>();
  const size_t last = first + reader.Read<uint8_t>();
  if (last >= FormatCoder::kSymbols) return frequencies;
  for (size_t s = first; s <= last; ++s) {
    const uint32_t low = reader.Read<uint8_t>();
    frequencies[s] = static_cast<uint16_t>(
        low < 128 ? low : (low - 128) << 8 | reader.Read<uint8_t>());
  }
  return frequencies;
}

}  // namespace

absl::Status ExponentDecoder::ReadSideInformation(
    absl::Span<const std::byte> bytes) {
  ByteReader reader(bytes);
  table_ = FormatCoder::Table::Create(ReadFrequencies(reader));
  if (!reader.ok() || !table_.ok()) {
    return absl::DataLossError(
        "the exponents' frequencies are cut off or do not add up to the total");
  }
  const size_t dims = reader.remaining();
  if (dims != 0 && dims != static_cast<size_t>(shape_.head_dim)) {
    return absl::DataLossError(absl::StrCat("coded exponents have ", dims,
                                            " offsets, expected 0 or ",
                                            shape_.head_dim));
  }
  const absl::Span<const std::byte> offsets = reader.Bytes(dims);
  if (dims != 0) std::memcpy(offsets_.data(), offsets.data(), dims);
  return absl::OkStatus();
}

absl::Status ExponentDecoder::Start() {
  const auto shorter = [] {
    return absl::DataLossError(
        "the parts of coded exponents do not add up to the stream's length");
  };
  if (stream_->remaining() < kExponentSizesBytes) return shorter();
  ByteReader sizes(stream_->Next(kExponentSizesBytes));
  const uint64_t side_bytes = sizes.Read<uint16_t>();
  const uint64_t first_bytes = sizes.Read<uint32_t>();
  const uint64_t second_bytes = sizes.Read<uint32_t>();
  const uint64_t rest_bytes = shape_.values() * RestBytes(shape_.dtype);
  if (side_bytes + first_bytes + second_bytes + rest_bytes !=
      stream_->remaining()) {
    return shorter();
  }
  if (absl::Status s = ReadSideInformation(stream_->Next(side_bytes));
      !s.ok()) {
    return s;
  }
  first_.emplace(stream_->Next(first_bytes), isa_);
  if (second_bytes > 0) second_.emplace(stream_->Next(second_bytes), isa_);
  return absl::OkStatus();
}

void ExponentDecoder::DecodeBlock() {
  const size_t dims = shape_.head_dim;
  const size_t rows = std::min<size_t>(std::max<size_t>(kBlockValues / dims, 1),
                                       shape_.tokens - block_end_);
  KDN_CHECK(rows > 0, "past the last row");
  const size_t before = (block_end_ - block_begin_) * dims;
  std::memmove(symbols_.data(), symbols_.data() + before, left_over_);
  const size_t missing = rows * dims - std::min(left_over_, rows * dims);
  const FormatCoder::Run run = {.steps = (missing + turn() - 1) / turn(),
                                .tables = {&*table_, nullptr}};
  uint8_t* const out = symbols_.data() + left_over_;
  if (second_) {
    FormatCoder::Decoder::DecodePair(
        {&*first_, run, out}, {&*second_, run, out + FormatCoder::kLanes},
        turn());
  } else {
    first_->DecodeRun(run, out);
  }
  left_over_ += run.steps * turn() - rows * dims;
  block_begin_ = block_end_;
  block_end_ += static_cast<int>(rows);
}

const std::byte* ExponentDecoder::NextRow() {
  if (token_ == block_end_) DecodeBlock();
  const size_t dims = shape_.head_dim;
  const size_t row_bytes = dims * RestBytes(shape_.dtype);
  while (rest_bytes_ < (token_ + 1) * row_bytes) {
    const auto next =
        stream_->Next(std::min(kCheckedBytes, stream_->remaining()));
    if (rest_ == nullptr) rest_ = next.data();
    rest_bytes_ += next.size();
  }
  MergeRow(shape_.dtype, symbols_.data() + (token_ - block_begin_) * dims,
           offsets_.data(), rest_ + token_ * row_bytes, dims, row_.data(),
           isa_);
  ++token_;
  return row_.data();
}

absl::Status ExponentDecoder::Finish() const {
  const absl::Status first = first_->Finish();
  return first.ok() && second_ ? second_->Finish() : first;
}

}  // namespace kdn::codec
