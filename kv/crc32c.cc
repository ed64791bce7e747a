#include "kv/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace kdn {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78u;  // 0x1edc6f41 reflected

constexpr std::array<uint32_t, 256> MakeByteTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc >> 1) ^ ((crc & 1u) != 0 ? kPolynomial : 0u);
    }
    table[byte] = crc;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kByteTable = MakeByteTable();

uint32_t ExtendBytes(uint32_t crc, const std::byte* at, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) {
    crc = kByteTable[(crc ^ static_cast<uint32_t>(at[i])) & 0xffu] ^ (crc >> 8);
  }
  return crc;
}

#if defined(__x86_64__)

// The instruction has a latency of 3 cycles and a throughput of one per cycle,
// so three independent runs of kRun bytes are computed at once. The CRCs of the
// first two runs are then shifted over the bytes behind them and joined (Gopal
// et al., "Fast CRC Computation Using the CRC32 Instruction", Intel 2011).
constexpr size_t kRun = 1024;

// Shifts a CRC over a fixed number of zero bytes. The shift is linear, so one
// table for each byte of the CRC is enough.
struct ShiftTable {
  std::array<std::array<uint32_t, 256>, 4> of;
};

ShiftTable MakeShiftTable(size_t zeros) {
  std::array<uint32_t, 32> basis;
  for (int bit = 0; bit < 32; ++bit) {
    uint32_t crc = 1u << bit;
    for (size_t i = 0; i < zeros; ++i) {
      crc = kByteTable[crc & 0xffu] ^ (crc >> 8);
    }
    basis[bit] = crc;
  }
  ShiftTable table{};
  for (int part = 0; part < 4; ++part) {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      for (int bit = 0; bit < 8; ++bit) {
        if ((byte >> bit & 1u) != 0) {
          table.of[part][byte] ^= basis[8 * part + bit];
        }
      }
    }
  }
  return table;
}

uint32_t Shift(const ShiftTable& table, uint32_t crc) {
  return table.of[0][crc & 0xffu] ^ table.of[1][crc >> 8 & 0xffu] ^
         table.of[2][crc >> 16 & 0xffu] ^ table.of[3][crc >> 24];
}

uint64_t Load64(const std::byte* at) {
  uint64_t word;
  std::memcpy(&word, at, sizeof(word));
  return word;
}

__attribute__((target("sse4.2"))) uint32_t ExtendSse42(uint32_t crc,
                                                       const std::byte* at,
                                                       size_t bytes) {
  static const ShiftTable over_one = MakeShiftTable(kRun);
  static const ShiftTable over_two = MakeShiftTable(2 * kRun);
  while (bytes >= 3 * kRun) {
    uint64_t a = crc;
    uint64_t b = 0;
    uint64_t c = 0;
    for (size_t i = 0; i < kRun; i += 8) {
      a = _mm_crc32_u64(a, Load64(at + i));
      b = _mm_crc32_u64(b, Load64(at + kRun + i));
      c = _mm_crc32_u64(c, Load64(at + 2 * kRun + i));
    }
    crc = Shift(over_two, static_cast<uint32_t>(a)) ^
          Shift(over_one, static_cast<uint32_t>(b)) ^ static_cast<uint32_t>(c);
    at += 3 * kRun;
    bytes -= 3 * kRun;
  }
  uint64_t wide = crc;
  for (; bytes >= 8; at += 8, bytes -= 8) {
    wide = _mm_crc32_u64(wide, Load64(at));
  }
  return ExtendBytes(static_cast<uint32_t>(wide), at, bytes);
}

#endif  // __x86_64__

}  // namespace

uint32_t ExtendCrc32cPortable(uint32_t crc, absl::Span<const std::byte> bytes) {
  return ~ExtendBytes(~crc, bytes.data(), bytes.size());
}

uint32_t ExtendCrc32c(uint32_t crc, absl::Span<const std::byte> bytes) {
#if defined(__x86_64__)
  static const bool has_sse42 = __builtin_cpu_supports("sse4.2");
  if (has_sse42) return ~ExtendSse42(~crc, bytes.data(), bytes.size());
#endif
  return ExtendCrc32cPortable(crc, bytes);
}

uint32_t Crc32c(absl::Span<const std::byte> bytes) {
  return ExtendCrc32c(0, bytes);
}

}  // namespace kdn
