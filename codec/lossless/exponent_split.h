#ifndef KDN_CODEC_LOSSLESS_EXPONENT_SPLIT_H_
#define KDN_CODEC_LOSSLESS_EXPONENT_SPLIT_H_

#include <cstddef>
#include <cstdint>

#include "codec/kernels/isa.h"
#include "kv/dtype.h"

// Takes elements apart into what entropy coding shortens and what it does not.
// Of the upper 16 bits of an element, the only ones of bf16 and fp16:
//   symbol = bits 14 to 7: the exponent; of fp16 3 bits of mantissa as well
//   rest   = bit 15 (sign) as bit 7, then bits 6 to 0
// fp32 has its lower 16 bits besides. Any bits split and merge back the same.
namespace kdn::codec {

// Bytes of an element besides its symbol.
constexpr size_t RestBytes(Dtype dtype) { return SizeOf(dtype) - 1; }

// Splits a row into `count` symbols and count * RestBytes(dtype) bytes: the
// rest of each element, and behind them, for fp32, the lower 16 bits of each.
void SplitRow(Dtype dtype, const std::byte* row, size_t count, uint8_t* symbols,
              std::byte* rest);

// The inverse, with offsets[i] added to symbol i modulo 256. Every `isa` gives
// the same. REQUIRES: Supports(isa).
void MergeRow(Dtype dtype, const uint8_t* symbols, const uint8_t* offsets,
              const std::byte* rest, size_t count, std::byte* row,
              Isa isa = BestIsa());

}  // namespace kdn::codec

#endif  // KDN_CODEC_LOSSLESS_EXPONENT_SPLIT_H_
