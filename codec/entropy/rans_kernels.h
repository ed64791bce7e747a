#ifndef KDN_CODEC_ENTROPY_RANS_KERNELS_H_
#define KDN_CODEC_ENTROPY_RANS_KERNELS_H_

#include <cstddef>
#include <cstdint>

// The loops of codec/entropy/rans.h, one for each instruction set; private to
// it. All give the same bits.
namespace kdn::codec::rans {

// x * ceil(2^44 / f) >> 44 is exactly x / f for every state x < f * 2^20. The
// rounded-up reciprocal has an error e < 1, so the quotient is too large by
// x * e / 2^44 < f * 2^20 / 2^44 <= 1 / f, too little to reach the next
// integer. Because f^2 <= 2^24, the product is below 2^64, too.
inline constexpr int kReciprocalBits = 44;

// Lanes that use a run's second table, lane L at bit L.
constexpr uint32_t SecondLanes(int half_bit) {
  constexpr uint32_t kLanes[] = {0xaaaaaaaau, 0xccccccccu, 0xf0f0f0f0u,
                                 0xff00ff00u, 0xffff0000u};
  return half_bit < 0 ? 0 : kLanes[half_bit];
}

// The decode or the encode entries of a run's tables. Lanes in `second_lanes`
// use the second table.
struct EntryTables {
  const uint32_t* first = nullptr;
  const uint32_t* second = nullptr;
  uint32_t second_lanes = 0;

  // Entries from the first table to the second. A vector loop adds them to its
  // 32-bit indices.
  int64_t Distance() const {
    return (reinterpret_cast<intptr_t>(second) -
            reinterpret_cast<intptr_t>(first)) /
           static_cast<int64_t>(sizeof(uint32_t));
  }
  // Whether a gather with 32-bit indices from the first table reaches the
  // second.
  bool InReach() const {
    constexpr int64_t kReach = int64_t{1} << 30;
    return Distance() < kReach && Distance() > -kReach;
  }
};

// The position in a stream that is being decoded.
struct DecodeStream {
  EntryTables tables;
  uint32_t* states = nullptr;
  // The next word; 64 bytes are readable from any place up to `last_start`.
  const std::byte* next = nullptr;
  const std::byte* last_start = nullptr;
  uint8_t* out = nullptr;
};

template <int kStreams>
inline bool HaveWords(const DecodeStream* streams) {
  for (int i = 0; i < kStreams; ++i) {
    if (streams[i].next > streams[i].last_start) return false;
  }
  return true;
}

// Decodes steps of one or two streams side by side, until `steps` are done or a
// stream's `next` is past its `last_start`. Advances the streams and returns
// the number of steps. The symbols of one step and the next are `stride` bytes
// apart. REQUIRES: tables.InReach() of each stream.
using DecodeSteps = size_t(DecodeStream* streams, size_t steps, size_t stride);
DecodeSteps DecodeOneAvx2;
DecodeSteps DecodePairAvx2;
DecodeSteps DecodeOneAvx512;
DecodeSteps DecodePairAvx512;

// Encodes a run from its last step to its first. Writes words downwards from
// `end` and returns the address of the last word that it wrote. CHECK-fails on
// a symbol without frequency. REQUIRES: tables.InReach().
std::byte* EncodeStepsAvx512(const EntryTables& tables, size_t steps,
                             const uint8_t* symbols, uint32_t* states,
                             std::byte* end);

}  // namespace kdn::codec::rans

#endif  // KDN_CODEC_ENTROPY_RANS_KERNELS_H_
