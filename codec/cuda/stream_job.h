#ifndef KDN_CODEC_CUDA_STREAM_JOB_H_
#define KDN_CODEC_CUDA_STREAM_JOB_H_

#include "codec/cuda/calibration_ref.h"
#include "codec/cuda/device.h"

namespace kdn::codec::cuda {

// What a warp does, decided on the host, where the streams were taken apart and
// every number below was checked. Trivially copyable. Offsets are into the
// arrays of a BatchRef.

// What a stream's tokens are padded to in its symbols, and in the tile of its
// values, of which the matrix units take so many at a time.
inline constexpr int kTokenStep = 8;
inline constexpr int kTileTokens = 16;
// Rows of a stream with more dimensions than that are none of this codec's.
inline constexpr int kDimMax = 256;
inline constexpr uint64_t kNowhere = ~uint64_t{0};

enum class ElementType : uint8_t { kBf16 = 0, kFp16 = 1, kFp32 = 2 };
enum class Pairing : uint8_t { kHalves = 0, kNeighbours = 1 };

// One level of a stream.
struct LevelJob {
  uint64_t symbols_at = 0;  // in bytes, aligned to 8; the patches end there
  uint32_t words = 0;       // that follow the states
  uint32_t patches = 0;
};

// Where the rows of a stream's wanted heads go: `base` has the first one's of
// the first token.
struct RowPlaces {
  uint8_t* base = nullptr;
  int64_t head_stride = 0;
  int64_t token_stride = 0;
  // Paged memory: token t of the chunk is the (first_token + t)th of a
  // sequence, whose blocks of block_tokens tokens lie where the table says.
  // `base` is of block 0 and its first token then. kNowhere: not paged.
  uint64_t block_table_at = kNowhere;
  int64_t block_stride = 0;
  int32_t block_tokens = 1;
  int32_t first_token = 0;
};

struct StreamJob {
  uint32_t transform = 0;
  int32_t tokens = 0;
  int32_t head_dim = 0;
  // Of the stream's heads, those wanted.
  int32_t head_begin = 0;
  int32_t head_end = 0;
  // Levels to decode: 0 when the rows are kept as they are.
  int32_t levels = 0;
  // Those that some level codes; behind them everything is zero.
  int32_t used_bands = 0;
  LevelJob base;
  LevelJob base1;
  LevelJob base2;
  float scale = 1.0f;
  uint64_t mean_at = kNowhere;  // bytes of bf16; kNowhere: the transform's
  // Rows kept as they are, in bf16, and their tokens, two bytes each; kNowhere:
  // all tokens.
  uint32_t raw_rows = 0;
  uint64_t raw_tokens_at = kNowhere;
  uint64_t raw_rows_at = 0;
  // Floats: cos then sin of each token's pairs. No pairs: nothing turns.
  int32_t pairs = 0;
  Pairing pairing = Pairing::kHalves;
  uint64_t rope_at = 0;
  ElementType type = ElementType::kBf16;
  // Whole blocks of dimensions turn together and rows are aligned to 16 bytes.
  bool in_blocks = false;
  RowPlaces places;

  // A copy of a named field: with an array or a reference to one of several, a
  // GPU would keep the job in memory instead of registers.
  KDN_DEVICE LevelJob level(int step) const {
    return step == 0 ? base : step == 1 ? base1 : base2;
  }
  // What the stream's values take: whole blocks of bands, 16 tokens at a time.
  KDN_DEVICE int tile_bands() const {
    return (used_bands + kBlockBands - 1) / kBlockBands * kBlockBands;
  }
  KDN_DEVICE int tile_tokens() const {
    return (tokens + kTileTokens - 1) / kTileTokens * kTileTokens;
  }
  KDN_DEVICE uint64_t tile_bytes() const {
    return static_cast<uint64_t>(tile_tokens()) * tile_bands() * kBandBytes;
  }
  // Those that have symbols.
  KDN_DEVICE int padded_tokens() const {
    return (tokens + kTokenStep - 1) / kTokenStep * kTokenStep;
  }
};

// Jobs that a team of warps does side by side, one each, and that have
// something in common which the team reads once. Places behind `count` repeat
// the first job, for warps that only help to read.
inline constexpr int kTeamWarps = 4;
struct Team {
  int32_t jobs[kTeamWarps];
  int32_t count;
};

// A batch in host or device memory.
struct BatchRef {
  CalibrationRef calibration;
  const uint8_t* bytes = nullptr;  // aligned to 16, with kBytesBehind more
  const float* rope = nullptr;     // aligned to 16
  const int32_t* blocks = nullptr;
  const StreamJob* jobs = nullptr;
  uint32_t* errors = nullptr;  // of each job: not the symbols that were coded
  int32_t job_count = 0;
};
inline constexpr int kBytesBehind = 16;

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_STREAM_JOB_H_
