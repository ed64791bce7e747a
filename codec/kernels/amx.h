#ifndef KDN_CODEC_KERNELS_AMX_H_
#define KDN_CODEC_KERNELS_AMX_H_

#if defined(__x86_64__)

#include <immintrin.h>

#include <cstdint>

// AMX, Intel's tile registers: eight tiles of 16 rows by 64 bytes.
namespace kdn::codec::amx {

// The operand of the instruction LDTILECFG.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  // The same size for all eight tiles.
  static TileConfig Uniform(int rows, int row_bytes) {
    TileConfig config;
    for (int tile = 0; tile < 8; ++tile) config.Set(tile, rows, row_bytes);
    return config;
  }
  void Set(int tile, int tile_rows, int tile_row_bytes) {
    rows[tile] = static_cast<uint8_t>(tile_rows);
    row_bytes[tile] = static_cast<uint16_t>(tile_row_bytes);
  }
  // The instruction reads the whole struct, but GCC 12 assumes that it reads
  // eight bytes only. The empty asm keeps all stores before it.
  __attribute__((target("amx-tile"))) void Load() const {
    asm volatile("" : : "r"(this) : "memory");
    _tile_loadconfig(this);
  }
};

}  // namespace kdn::codec::amx

#endif

#endif  // KDN_CODEC_KERNELS_AMX_H_
