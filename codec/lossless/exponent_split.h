#ifndef KDN_CODEC_LOSSLESS_EXPONENT_SPLIT_H_
#define KDN_CODEC_LOSSLESS_EXPONENT_SPLIT_H_

#include <cstddef>
#include <cstdint>

#include "kv/dtype.h"
#include "kv/isa.h"

// Splits elements into symbols, which entropy coding shortens, and the rest,
// which it does not. From the upper 16 bits of an element (bf16 and fp16 have
// no others):
//   symbol = bits 14 to 7: the exponent, and in fp16 also 3 bits of mantissa
//   rest   = bit 15 (the sign) as bit 7, then bits 6 to 0
// The rest of an fp32 also has its lower 16 bits. Merging restores all bits,
// NaNs included.
namespace kdn::codec {

// Bytes of an element's rest.
constexpr size_t RestBytes(Dtype dtype) { return SizeOf(dtype) - 1; }

// Splits a row of `count` elements into `count` symbols and
// count * RestBytes(dtype) bytes of `rest`: one byte for each element, then,
// for fp32, the lower 16 bits of each element.
void SplitRow(Dtype dtype, const std::byte* row, size_t count, uint8_t* symbols,
              std::byte* rest);

// The inverse of SplitRow; adds offsets[i] to symbol i first, modulo 256. Every
// `isa` gives the same row. REQUIRES: Supports(isa).
void MergeRow(Dtype dtype, const uint8_t* symbols, const uint8_t* offsets,
              const std::byte* rest, size_t count, std::byte* row,
              Isa isa = BestIsa());

}  // namespace kdn::codec

#endif  // KDN_CODEC_LOSSLESS_EXPONENT_SPLIT_H_
