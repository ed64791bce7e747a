#ifndef KDN_CODEC_CUDA_STREAM_JOB_H_
#define KDN_CODEC_CUDA_STREAM_JOB_H_

#include "codec/cuda/calibration_ref.h"
#include "codec/cuda/device.h"

namespace kdn::codec::cuda {

// The work of one warp. The host takes the streams apart and checks every
// number below. Trivially copyable. Offsets are into the arrays of a BatchRef.

// A stream's symbols are padded to a multiple of kTokenStep tokens, and its
// values to a multiple of kTileTokens, which the matrix units take at a time.
inline constexpr int kTokenStep = 8;
inline constexpr int kTileTokens = 16;
// The most dimensions of the rows of a stream of K or V, and of a joint stream,
// which has both.
inline constexpr int kDimMax = 256;
inline constexpr int kJointDimsMax = 512;
// The offset of something that does not exist.
inline constexpr uint64_t kNowhere = ~uint64_t{0};

enum class ElementType : uint8_t { kBf16 = 0, kFp16 = 1, kFp32 = 2 };
enum class Pairing : uint8_t { kHalves = 0, kNeighbours = 1 };

// Bytes of a patch in streams of up to 256 columns. In others it has one more.
inline constexpr int kPatchBytes = 4;

// One level of a stream.
struct LevelJob {
  uint64_t symbols_at = 0;  // in bytes, aligned to 8; the patches end there
  uint32_t words = 0;       // after the states
  uint32_t patches = 0;
};

// The tokens of one class; see codec/transform/token_order.h. Their values are
// the rows [first_row, first_row + rows) of the stream's tile.
struct RowRun {
  int32_t first_row = 0;
  int32_t rows = 0;       // with padding, a multiple of kTokenStep
  uint64_t bands_at = 0;  // the class's BandRefs: [band][step]
};

// One row of values of a joint stream.
struct ValueRow {
  // kNoToken: the row is padding, or the stream has a raw row for its token.
  uint16_t token;
  int16_t exponent;  // of its class; see TokenClass
};
inline constexpr uint16_t kNoToken = 0xffff;

// The places of the rows of a stream's wanted heads. `base` is the row of the
// first wanted head for the first token.
struct RowPlaces {
  uint8_t* base = nullptr;
  int64_t head_stride = 0;
  int64_t token_stride = 0;
  // Paged memory: token t of the chunk is token first_token + t of a sequence.
  // The block table says where the sequence's blocks of block_tokens tokens
  // lie. `base` is then the row for the first token of block 0. kNowhere: not
  // paged.
  uint64_t block_table_at = kNowhere;
  int64_t block_stride = 0;
  int32_t block_tokens = 1;
  int32_t first_token = 0;
};

struct StreamJob {
  uint32_t transform = 0;
  int32_t tokens = 0;
  int32_t head_dim = 0;
  // The heads of which a joint stream has K, then V. 0: the stream has K or V.
  int32_t joint_heads = 0;
  // The wanted heads of the stream, [head_begin, head_end). Of a joint stream:
  // those whose K and V is wanted.
  int32_t head_begin = 0;
  int32_t head_end = 0;
  // The number of levels to decode; 0 when all rows are raw.
  int32_t levels = 0;
  // The bands up to the last that a level codes, of the components and of the
  // high parts. Values of later bands are zero.
  int32_t used_bands = 0;
  int32_t used_high = 0;
  // The rows of values: the tokens, or those of each class, padded to whole
  // token steps. The runs of each class with tokens are at runs_at. `classes`
  // has a bit for each such class.
  int32_t rows = 0;
  int32_t patch_bytes = kPatchBytes;
  int32_t runs = 0;
  uint64_t runs_at = 0;
  uint32_t classes = 1;
  // Of a joint stream: the ValueRow of each row, for whole tiles, and the scale
  // of each head's K, then of each head's V.
  uint64_t value_rows_at = 0;
  uint64_t scales_at = 0;
  LevelJob base;
  LevelJob base1;
  LevelJob base2;
  float scale = 1.0f;
  uint64_t mean_at = kNowhere;  // bf16; kNowhere: the transform's mean
  // The number of raw rows, their tokens, two bytes each, and the rows, in
  // bf16. Without a list of tokens (kNowhere) all rows are raw.
  uint32_t raw_rows = 0;
  uint64_t raw_tokens_at = kNowhere;
  uint64_t raw_rows_at = 0;
  // At rope_at are, for each token, `pairs` cosines and then `pairs` sines.
  // Without pairs the rows are not rotated.
  int32_t pairs = 0;
  Pairing pairing = Pairing::kHalves;
  uint64_t rope_at = 0;
  ElementType type = ElementType::kBf16;
  // Whether rows are written in blocks: RoPE must turn whole blocks of
  // dimensions together, and rows must be aligned to 16 bytes.
  bool in_blocks = false;
  RowPlaces places;
  // From a row of K to the same head's row of V. Joint streams only.
  int64_t v_offset = 0;

  // Returns a copy of a named field: with an array, or a reference to one of
  // several fields, a GPU would keep the job in memory instead of registers.
  KDN_DEVICE LevelJob level(int step) const {
    return step == 0 ? base : step == 1 ? base1 : base2;
  }
  // Where the bands of high parts begin in the tile. Components and high parts
  // take whole blocks of bands each.
  KDN_DEVICE int high_bands_at() const { return WholeBlocks(used_bands); }
  // The bands of the synthesis that rows are made with.
  KDN_DEVICE int synthesis_bands() const {
    return used_high > used_bands ? used_high : used_bands;
  }
  // The size of the stream's values, padded to whole blocks of bands and to 16
  // rows.
  KDN_DEVICE int tile_bands() const {
    return high_bands_at() + WholeBlocks(used_high);
  }
  KDN_DEVICE int tile_rows() const {
    return (rows + kTileTokens - 1) / kTileTokens * kTileTokens;
  }
  KDN_DEVICE uint64_t tile_bytes() const {
    return static_cast<uint64_t>(tile_rows()) * tile_bands() * kBandBytes;
  }
  KDN_DEVICE static int WholeBlocks(int bands) {
    return (bands + kBlockBands - 1) / kBlockBands * kBlockBands;
  }
};

// The jobs of a team of warps, one per warp. They have data in common, which
// the team reads once. Entries from `count` on repeat the first job, for warps
// that only help to read.
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
  const RowRun* runs = nullptr;
  const ValueRow* value_rows = nullptr;
  const float* scales = nullptr;
  const StreamJob* jobs = nullptr;
  uint32_t* errors = nullptr;  // of each job; 1: damaged symbols
  int32_t job_count = 0;
};
inline constexpr int kBytesBehind = 16;

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_STREAM_JOB_H_
