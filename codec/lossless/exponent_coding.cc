#include "codec/lossless/exponent_coding.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "codec/format/byte_io.h"
#include "codec/lossless/exponent_split.h"
#include "kv/check.h"

namespace kdn::codec {
namespace {

// From this number of values on there is a second rANS stream: its 128 bytes
// are then less than 0.6 % of the whole.
constexpr size_t kTwoStreamsValues = 16384;
// Two bytes for each frequency and one byte for each offset.
constexpr size_t kSideBytesMax = 2 + 2 * FormatCoder::kSymbols + kHeadDimMax;
// Offsets move the mean symbol of each dimension to the middle, so that the
// range of symbols does not wrap around.
constexpr uint32_t kCentre = 128;

using Counts = std::array<uint32_t, FormatCoder::kSymbols>;

size_t StreamsOf(const StreamShape& shape) {
  return shape.values() >= kTwoStreamsValues ? 2 : 1;
}

// Steps of each rANS stream.
size_t StepsOf(const StreamShape& shape) {
  const size_t turn = StreamsOf(shape) * FormatCoder::kLanes;
  return (shape.values() + turn - 1) / turn;
}

Counts CountSymbols(const std::vector<uint8_t>& symbols, size_t values) {
  // Four tables of counts: with one table, each of several equal symbols in a
  // row would wait until the symbol before it has updated the count.
  std::array<Counts, 4> counts{};
  size_t at = 0;
  for (; at + 4 <= values; at += 4) {
    for (size_t i = 0; i < 4; ++i) ++counts[i][symbols[at + i]];
  }
  for (; at < values; ++at) ++counts[0][symbols[at]];
  for (size_t s = 0; s < FormatCoder::kSymbols; ++s) {
    for (int i = 1; i < 4; ++i) counts[0][s] += counts[i][s];
  }
  return counts[0];
}

// The entropy of symbols with these counts. It serves to compare two ways of
// coding, so it need not be exact.
double CodeBits(const Counts& counts) {
  double bits = 0.0;
  double total = 0.0;
  for (const double count : counts) {
    if (count > 0) bits -= count * std::log2(count);
    total += count;
  }
  return bits + total * std::log2(total);
}

// The least bytes that symbols with these counts take, with lengths, side
// information and the states of the rANS streams.
double LeastBytes(const StreamShape& shape, const Counts& counts) {
  const auto used = std::count_if(counts.begin(), counts.end(),
                                  [](uint32_t count) { return count > 0; });
  return CodeBits(counts) / 8 + static_cast<double>(used) +
         static_cast<double>(kExponentSizesBytes +
                             StreamsOf(shape) * FormatCoder::BytesMax(0));
}

// For each dimension its mean symbol over the tokens, less kCentre, modulo 256.
std::vector<uint8_t> OffsetsOf(const StreamShape& shape,
                               const std::vector<uint8_t>& symbols) {
  std::vector<uint32_t> sums(shape.head_dim);
  for (int token = 0; token < shape.tokens; ++token) {
    const uint8_t* row = symbols.data() + size_t(token) * shape.head_dim;
    for (int dim = 0; dim < shape.head_dim; ++dim) sums[dim] += row[dim];
  }
  // Offsets are whole exponents, so that mantissa bits in a symbol do not
  // change.
  const uint32_t unit = shape.dtype == Dtype::kFp16 ? 8 : 1;
  std::vector<uint8_t> offsets(shape.head_dim);
  for (int dim = 0; dim < shape.head_dim; ++dim) {
    const uint32_t mean = (sums[dim] + shape.tokens / 2) / shape.tokens;
    offsets[dim] = static_cast<uint8_t>(mean / unit * unit - kCentre);
  }
  return offsets;
}

struct Split {
  std::vector<uint8_t> symbols;  // whole steps of all rANS streams
  std::vector<std::byte> rest;
};

Split SplitRows(const StreamShape& shape, const Rows& rows) {
  const size_t dims = shape.head_dim;
  Split split;
  split.symbols.resize(StreamsOf(shape) * StepsOf(shape) * FormatCoder::kLanes);
  split.rest.resize(shape.values() * RestBytes(shape.dtype));
  for (int token = 0; token < shape.tokens; ++token) {
    SplitRow(shape.dtype, rows.At(token), dims,
             split.symbols.data() + token * dims,
             split.rest.data() + token * dims * RestBytes(shape.dtype));
  }
  return split;
}

void Subtract(const StreamShape& shape, const std::vector<uint8_t>& offsets,
              std::vector<uint8_t>& symbols) {
  for (int token = 0; token < shape.tokens; ++token) {
    uint8_t* row = symbols.data() + size_t(token) * shape.head_dim;
    for (int dim = 0; dim < shape.head_dim; ++dim) row[dim] -= offsets[dim];
  }
}

// Subtracts offsets from the symbols if that shortens the code by more than the
// offsets take. Returns the offsets, or no offsets if the symbols stay.
std::vector<uint8_t> Centre(const StreamShape& shape, Counts& counts,
                            std::vector<uint8_t>& symbols) {
  std::vector<uint8_t> offsets = OffsetsOf(shape, symbols);
  std::vector<uint8_t> moved = symbols;
  Subtract(shape, offsets, moved);
  const Counts moved_counts = CountSymbols(moved, shape.values());
  if (CodeBits(moved_counts) + 8.0 * shape.head_dim >= CodeBits(counts)) {
    return {};
  }
  counts = moved_counts;
  symbols = std::move(moved);
  return offsets;
}

size_t WriteSideInformation(
    const std::array<uint16_t, FormatCoder::kSymbols>& frequencies,
    const std::vector<uint8_t>& offsets, absl::Span<std::byte> out) {
  const auto used = [](uint16_t frequency) { return frequency > 0; };
  const auto first = std::find_if(frequencies.begin(), frequencies.end(), used);
  const auto behind =
      std::find_if(frequencies.rbegin(), frequencies.rend(), used).base();
  ByteWriter writer(out);
  writer.Write(static_cast<uint8_t>(first - frequencies.begin()));
  writer.Write(static_cast<uint8_t>(behind - first - 1));
  for (auto frequency = first; frequency != behind; ++frequency) {
    if (*frequency >= 128) {
      writer.Write(static_cast<uint8_t>(128 | *frequency >> 8));
    }
    writer.Write(static_cast<uint8_t>(*frequency));
  }
  writer.Bytes(offsets.data(), offsets.size());
  return writer.written();
}

// The steps first, first + streams, first + 2 * streams, ...
std::vector<uint8_t> StepsInTurn(const std::vector<uint8_t>& symbols,
                                 size_t first, size_t streams) {
  std::vector<uint8_t> steps(symbols.size() / streams);
  for (size_t at = 0; at < steps.size(); at += FormatCoder::kLanes) {
    std::memcpy(steps.data() + at,
                symbols.data() + at * streams + first * FormatCoder::kLanes,
                FormatCoder::kLanes);
  }
  return steps;
}

// The rANS streams. The second is empty if there is only one.
using CodedSymbols = std::array<std::vector<std::byte>, 2>;

CodedSymbols EncodeSymbols(
    const StreamShape& shape,
    const std::array<uint16_t, FormatCoder::kSymbols>& frequencies,
    std::vector<uint8_t>& symbols) {
  const auto likeliest =
      std::max_element(frequencies.begin(), frequencies.end());
  std::fill(symbols.begin() + shape.values(), symbols.end(),
            static_cast<uint8_t>(likeliest - frequencies.begin()));
  const auto table = FormatCoder::Table::Create(frequencies);
  KDN_CHECK(table.ok(), "normalised frequencies are a distribution");
  CodedSymbols coded;
  const size_t streams = StreamsOf(shape);
  for (size_t i = 0; i < streams; ++i) {
    const std::vector<uint8_t> mine = StepsInTurn(symbols, i, streams);
    FormatCoder::Encoder encoder;
    encoder.AddRun({.steps = StepsOf(shape), .tables = {&*table, nullptr}},
                   mine.data());
    coded[i].resize(encoder.BytesMax());
    coded[i].resize(encoder.Finish(absl::MakeSpan(coded[i])));
  }
  return coded;
}

}  // namespace

size_t EncodeExponents(const StreamShape& shape, const Rows& rows,
                       absl::Span<std::byte> out) {
  Split split = SplitRows(shape, rows);
  Counts counts = CountSymbols(split.symbols, shape.values());
  const std::vector<uint8_t> offsets = Centre(shape, counts, split.symbols);
  if (LeastBytes(shape, counts) + static_cast<double>(split.rest.size()) >=
      static_cast<double>(out.size())) {
    return 0;  // would not fit
  }
  const auto frequencies = FormatCoder::Normalise(counts);
  std::array<std::byte, kSideBytesMax> side;
  const size_t side_bytes =
      WriteSideInformation(frequencies, offsets, absl::MakeSpan(side));
  const CodedSymbols coded = EncodeSymbols(shape, frequencies, split.symbols);
  const size_t bytes = kExponentSizesBytes + side_bytes + coded[0].size() +
                       coded[1].size() + split.rest.size();
  if (bytes > out.size()) return 0;
  ByteWriter writer(out);
  writer.Write(static_cast<uint16_t>(side_bytes));
  for (const auto& stream : coded) {
    writer.Write(static_cast<uint32_t>(stream.size()));
  }
  writer.Bytes(side.data(), side_bytes);
  for (const auto& stream : coded) writer.Bytes(stream.data(), stream.size());
  writer.Bytes(split.rest.data(), split.rest.size());
  return bytes;
}

}  // namespace kdn::codec
