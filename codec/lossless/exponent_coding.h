#ifndef KDN_CODEC_LOSSLESS_EXPONENT_CODING_H_
#define KDN_CODEC_LOSSLESS_EXPONENT_CODING_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "codec/entropy/format_coder.h"
#include "codec/format/stream_reader.h"
#include "codec/kernels/isa.h"
#include "codec/stream_codec.h"

namespace kdn::codec {

// Rows coded bit for bit: exponents, of which few occur in one head, by their
// frequencies, sign and mantissa, which look random, as they are. About 10.7
// bits for a bf16 value.
//
//   u16 bytes of side information | u32 bytes of the first rANS stream | u32 of
//     the second, 0 when there is none
//   side information: u8 first symbol | u8 how many, less one | frequency of
//     each: u8 below 128, else u8 128 + high, u8 low | offsets, one u8 per
//     dimension, or none: zeros
//   rANS streams (codec/entropy/rans.h), one run of one table: the steps of
//     [token][dim] in turns, padded to equally many whole steps by any symbol;
//     each is a symbol (SplitRow) less its dimension's offset, modulo 256
//   [token]: what SplitRow leaves besides the symbols
//
// Two rANS streams decode faster than one (RansDecoder::DecodePair), but a
// stream costs 128 bytes: small ones are not worth it. Offsets
// bring dimensions of different magnitude, as K has them, together.

// Of the three lengths.
inline constexpr size_t kExponentSizesBytes =
    sizeof(uint16_t) + 2 * sizeof(uint32_t);

// Writes the coded rows and returns their bytes; 0 when they do not fit.
size_t EncodeExponents(const StreamShape& shape, const Rows& rows,
                       absl::Span<std::byte> out);

// Gives coded rows back, one after the other. Trusts no byte. Does not own the
// reader. Thread-compatible.
class ExponentDecoder {
 public:
  // REQUIRES: the dimensions of `shape` are bounded (kHeadDimMax).
  ExponentDecoder(const StreamShape& shape, StreamReader* stream, Isa isa)
      : shape_(shape), stream_(stream), isa_(isa) {}

  // Reads what comes before the rows. DATA_LOSS when it is nothing that
  // EncodeExponents writes.
  absl::Status Start();
  // The next row, good until the next call, aligned for any element. The rows
  // are good only if Finish is OK. REQUIRES: Start was OK; at most
  // shape.tokens calls.
  const std::byte* NextRow();
  // DATA_LOSS unless the stream was of exactly these rows.
  absl::Status Finish() const;

 private:
  // Values whose symbols are decoded at a time, unless one row is longer: still
  // in the first-level cache when they are merged.
  static constexpr size_t kBlockValues = 4096;
  static constexpr size_t kSymbolsRoom = kHeadDimMax + 4 * FormatCoder::kLanes;
  static_assert(kBlockValues <= kHeadDimMax, "the room for symbols");

  absl::Status ReadSideInformation(absl::Span<const std::byte> bytes);
  void DecodeBlock();
  // Symbols of one step of each rANS stream.
  size_t turn() const {
    return second_ ? 2 * FormatCoder::kLanes : FormatCoder::kLanes;
  }

  StreamShape shape_;
  StreamReader* stream_;
  Isa isa_;
  absl::StatusOr<FormatCoder::Table> table_;
  std::optional<FormatCoder::Decoder> first_;
  std::optional<FormatCoder::Decoder> second_;
  std::array<uint8_t, kHeadDimMax> offsets_{};
  // Rows [block_begin_, block_end_) have their symbols decoded, row token_ is
  // the next to go out.
  int block_begin_ = 0;
  int block_end_ = 0;
  int token_ = 0;
  // Symbols decoded behind those rows, to the end of a turn.
  size_t left_over_ = 0;
  // What goes with the symbols, and how much of it the stream has handed out.
  const std::byte* rest_ = nullptr;
  size_t rest_bytes_ = 0;
  alignas(64) std::array<uint8_t, kSymbolsRoom> symbols_;
  alignas(64) std::array<std::byte, kHeadDimMax * sizeof(float)> row_;
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_LOSSLESS_EXPONENT_CODING_H_
