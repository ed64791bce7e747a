#include "codec/lossless/exponent_split.h"

#include <cstring>

namespace kdn::codec {
namespace {

// One body for all instruction sets; each set has a function that inlines it.
#define KDN_INLINE __attribute__((always_inline)) inline

template <typename T>
KDN_INLINE T LoadAt(const std::byte* base, size_t index) {
  T value;
  std::memcpy(&value, base + index * sizeof(T), sizeof(T));
  return value;
}

template <typename T>
KDN_INLINE void StoreAt(std::byte* base, size_t index, T value) {
  std::memcpy(base + index * sizeof(T), &value, sizeof(T));
}

KDN_INLINE uint16_t Merged(uint8_t symbol, uint8_t offset, uint8_t rest) {
  const auto moved = static_cast<uint8_t>(symbol + offset);
  return static_cast<uint16_t>((rest & 0x80) << 8 | moved << 7 | (rest & 0x7f));
}

KDN_INLINE void MergeAny(bool wide, const uint8_t* __restrict symbols,
                         const uint8_t* __restrict offsets,
                         const std::byte* __restrict rest, size_t count,
                         std::byte* __restrict row) {
  if (!wide) {
    for (size_t i = 0; i < count; ++i) {
      StoreAt(row, i, Merged(symbols[i], offsets[i], LoadAt<uint8_t>(rest, i)));
    }
    return;
  }
  const std::byte* const low = rest + count;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t high =
        Merged(symbols[i], offsets[i], LoadAt<uint8_t>(rest, i));
    StoreAt(row, i, high << 16 | LoadAt<uint16_t>(low, i));
  }
}

void MergeBaseline(bool wide, const uint8_t* symbols, const uint8_t* offsets,
                   const std::byte* rest, size_t count, std::byte* row) {
  MergeAny(wide, symbols, offsets, rest, count, row);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) void MergeAvx2(bool wide,
                                               const uint8_t* symbols,
                                               const uint8_t* offsets,
                                               const std::byte* rest,
                                               size_t count, std::byte* row) {
  MergeAny(wide, symbols, offsets, rest, count, row);
}
#endif

}  // namespace

void SplitRow(Dtype dtype, const std::byte* row, size_t count, uint8_t* symbols,
              std::byte* rest) {
  const bool wide = SizeOf(dtype) == sizeof(uint32_t);
  std::byte* const low = rest + count;
  for (size_t i = 0; i < count; ++i) {
    // Little-endian: the upper half of an fp32 comes second.
    const uint16_t high = LoadAt<uint16_t>(row, wide ? 2 * i + 1 : i);
    symbols[i] = static_cast<uint8_t>(high >> 7);
    StoreAt(rest, i, static_cast<uint8_t>((high >> 8 & 0x80) | (high & 0x7f)));
    if (wide) StoreAt(low, i, LoadAt<uint16_t>(row, 2 * i));
  }
}

void MergeRow(Dtype dtype, const uint8_t* symbols, const uint8_t* offsets,
              const std::byte* rest, size_t count, std::byte* row, Isa isa) {
  const bool wide = SizeOf(dtype) == sizeof(uint32_t);
#if defined(__x86_64__)
  if (isa >= Isa::kAvx2) {
    return MergeAvx2(wide, symbols, offsets, rest, count, row);
  }
#else
  (void)isa;
#endif
  MergeBaseline(wide, symbols, offsets, rest, count, row);
}

}  // namespace kdn::codec
