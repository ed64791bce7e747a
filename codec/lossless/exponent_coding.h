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
#include "codec/stream_codec.h"
#include "kv/isa.h"

namespace kdn::codec {

// Codes rows bit for bit. Only few exponents occur in a head: they are entropy-
// coded. Sign and mantissa look random: they are stored as they are. A bf16
// value takes about 10.7 bits.
//
//   u16 bytes of the side information | u32 bytes of the first rANS stream |
//     u32 bytes of the second, 0 if there is none
//   side information: u8 first symbol | u8 number of symbols less one |
//     frequency of each symbol: u8 if below 128, else u8 128 + high, u8 low |
//     offsets: one u8 for each dimension, or none, which means zeros
//   one or two rANS streams (codec/entropy/rans.h): each is one run, and both
//     use the same table. The steps of the symbols [token][dim] go to the two
//     streams in turns. Any symbol pads both to the same number of whole steps.
//     A coded symbol is the symbol of SplitRow minus the offset of its
//     dimension, modulo 256
//   for each token, the `rest` of SplitRow
//
// Two rANS streams decode faster than one (RansDecoder::DecodePair), but each
// costs 128 bytes, so short streams have one. Offsets give dimensions of
// different magnitude, as K has them, similar symbols.

// Bytes of the three lengths.
inline constexpr size_t kExponentSizesBytes =
    sizeof(uint16_t) + 2 * sizeof(uint32_t);

// Writes the coded rows and returns their length in bytes; 0 if they do not fit
// into `out`.
size_t EncodeExponents(const StreamShape& shape, const Rows& rows,
                       absl::Span<std::byte> out);

// Decodes the rows one after the other, from untrusted bytes. Does not own the
// reader. Thread-compatible.
class ExponentDecoder {
 public:
  // REQUIRES: shape.head_dim is at most kHeadDimMax.
  ExponentDecoder(const StreamShape& shape, StreamReader* stream, Isa isa)
      : shape_(shape), stream_(stream), isa_(isa) {}

  // Reads lengths and side information. DATA_LOSS unless EncodeExponents can
  // write them.
  absl::Status Start();
  // The next row, valid until the next call, aligned to 64 bytes. The rows are
  // right only if Finish is OK. REQUIRES: Start was OK; at most shape.tokens
  // calls.
  const std::byte* NextRow();
  // DATA_LOSS unless the rANS streams hold exactly these rows.
  absl::Status Finish() const;

 private:
  // Values that are decoded at a time, at least one row: few enough that their
  // symbols are still in the first-level cache when they are merged.
  static constexpr size_t kBlockValues = 4096;
  static constexpr size_t kSymbolsRoom = kHeadDimMax + 4 * FormatCoder::kLanes;
  static_assert(kBlockValues <= kHeadDimMax, "the room for symbols");

  absl::Status ReadSideInformation(absl::Span<const std::byte> bytes);
  void DecodeBlock();
  // The number of symbols in one step of each rANS stream.
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
  // The symbols of rows [block_begin_, block_end_) are decoded; row token_ is
  // the next that NextRow returns.
  int block_begin_ = 0;
  int block_end_ = 0;
  int token_ = 0;
  // Number of symbols decoded after those rows, up to the end of a turn.
  size_t left_over_ = 0;
  // The rest of all rows, and how many bytes of it stream_ has handed out.
  const std::byte* rest_ = nullptr;
  size_t rest_bytes_ = 0;
  alignas(64) std::array<uint8_t, kSymbolsRoom> symbols_;
  alignas(64) std::array<std::byte, kHeadDimMax * sizeof(float)> row_;
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_LOSSLESS_EXPONENT_CODING_H_
