#ifndef KDN_CODEC_KERNELS_AMX_H_
#define KDN_CODEC_KERNELS_AMX_H_

#if defined(__x86_64__)

#include <immintrin.h>

#include <cstdint>

// Intel's tile registers: eight of 16 rows by 64 bytes.
namespace kdn::codec::amx {

// Whether this process may use tiles of int8 and bf16; asks the kernel for them
// when first called. For Supports(Isa::kAmx), see there what else that takes.
bool IsUsable();

// What LDTILECFG reads.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  // All eight tiles alike.
  static TileConfig Uniform(int rows, int row_bytes) {
    TileConfig config;
    for (int tile = 0; tile < 8; ++tile) config.Set(tile, rows, row_bytes);
    return config;
  }
  void Set(int tile, int tile_rows, int tile_row_bytes) {
    rows[tile] = static_cast<uint8_t>(tile_rows);
    row_bytes[tile] = static_cast<uint16_t>(tile_row_bytes);
  }
  // GCC 12 believes that the instruction reads eight bytes; it reads all.
  __attribute__((target("amx-tile"))) void Load() const {
    asm volatile("" : : "r"(this) : "memory");
    _tile_loadconfig(this);
  }
};

}  // namespace kdn::codec::amx

#endif

#endif  // KDN_CODEC_KERNELS_AMX_H_
