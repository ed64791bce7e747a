#ifndef KDN_CODEC_ENTROPY_RANS_H_
#define KDN_CODEC_ENTROPY_RANS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "codec/entropy/entropy_coder.h"
#include "codec/kernels/isa.h"

// Entropy coding of 8-bit symbols: 32 range-ANS coders (Duda, arXiv 1311.2540)
// whose words share one stream (Giesen, "Interleaved entropy coders", arXiv
// 1402.3392), so that a vector unit or a CUDA warp, one lane a thread, decodes
// 32 symbols at a time. Coded size is the cross entropy of symbols and
// frequencies, plus 128 bytes, plus some 0.01 %.
//
// Symbols come in runs of steps, a step being one symbol for each lane L, 0 to
// 31. Lane L of a run takes its frequencies from tables[(L >> half_bit) & 1].
// Lanes keep their states from run to run. Runs and tables are not in the
// stream: both sides know them.
//
// A table gives each symbol s a frequency f[s], 0 to 4096, their sum is 4096,
// and the interval of slots from start[s] = f[0] + ... + f[s - 1].
//
// The stream, little-endian, without gaps:
//   32 x u32   state x of each lane, every one in [2^16, 2^32)
//   n x u16    words
// A step, for every lane:
//   slot = x & 4095;  s = the symbol whose interval holds slot
//   x = f[s] * (x >> 12) + slot - start[s];  s is the lane's symbol
// and then, in ascending order, each lane with x < 2^16 takes the next word:
//   x = x << 16 | word
// After the last step of the last run every x is 2^16 and no word is left. The
// encoder starts there and goes backwards: x in [f * 2^20, ...) gives its low
// 16 bits away, then x = (x / f) * 4096 + x % f + start.
namespace kdn::codec {

namespace rans {
struct DecodeStream;
}  // namespace rans

inline constexpr int kRansLanes = 32;
inline constexpr size_t kRansSymbols = 256;
// Sum of a table's frequencies.
inline constexpr uint32_t kRansTotal = 4096;

// Frequencies, sum kRansTotal, with which symbols of these counts code short:
// every count that is not zero gets at least 1, what rounding leaves goes where
// it shortens the code most. Integer arithmetic: the same everywhere.
// REQUIRES: kRansSymbols counts, not all zero.
std::array<uint16_t, kRansSymbols> NormaliseCounts(
    absl::Span<const uint32_t> counts);

// The frequencies of one run's symbols, made ready for coding. A value of 19
// KB, immutable: any thread.
class alignas(64) RansTable {
 public:
  // INVALID_ARGUMENT unless there are kRansSymbols of them, sum kRansTotal.
  static absl::StatusOr<RansTable> Create(
      absl::Span<const uint16_t> frequencies);

  // kRansTotal entries, aligned to 64 bytes, one per slot: bits 0 to 7 symbol,
  // 8 to 19 frequency - 1, 20 to 31 slot - start. What a decoder needs.
  const uint32_t* decode_entries() const { return decode_.data(); }
  // kRansSymbols entries: start | frequency << 16. What an encoder needs.
  const uint32_t* encode_entries() const { return encode_.data(); }
  // kRansSymbols entries: ceil(2^44 / frequency), 0 where that is 0.
  const uint64_t* reciprocals() const { return reciprocals_.data(); }

  uint32_t frequency(uint8_t symbol) const { return encode_[symbol] >> 16; }

 private:
  RansTable() = default;

  std::array<uint32_t, kRansTotal> decode_;
  std::array<uint32_t, kRansSymbols> encode_;
  std::array<uint64_t, kRansSymbols> reciprocals_;
};

// Which symbols come next. The tables are not owned and must outlive the coder.
// Two tables of one run decode fastest if they lie in one array.
struct RansRun {
  size_t steps = 0;
  const RansTable* tables[2] = {nullptr, nullptr};
  // 0 to 4: lane L uses tables[(L >> half_bit) & 1]. -1: tables[0] for all.
  int half_bit = -1;

  size_t symbols() const { return steps * kRansLanes; }
};

// Upper bound of the stream of so many steps, all runs together. A symbol
// enlarges a state at most 4096-fold (frequency 1), and rounding by another
// 17/16, as x >= 16 f after a word is given away: log2(4096 * 17/16) < 12.25
// bits. A state starts at 2^16 and does not end below, so its words have no
// more bits than that.
constexpr size_t RansBytesMax(size_t steps) {
  return sizeof(uint32_t) * kRansLanes +
         sizeof(uint16_t) * kRansLanes * (steps * 49 / 64);
}

// Collects runs and writes their stream. Thread-compatible.
class RansEncoder {
 public:
  // REQUIRES: Supports(isa). The stream is the same for every `isa`.
  explicit RansEncoder(Isa isa = BestIsa());

  // Appends run.symbols() symbols: those of the first step in the order of
  // lanes, then those of the next. Neither they nor the tables are copied: both
  // must stay until Finish. REQUIRES: the run's tables give each symbol a
  // frequency above 0; half_bit is in range.
  void AddRun(const RansRun& run, const uint8_t* symbols);

  // RansBytesMax of what was added.
  size_t BytesMax() const { return RansBytesMax(steps_); }

  // Writes the stream, returns its bytes and forgets the runs. Bytes behind the
  // stream are overwritten too. REQUIRES: out.size() >= BytesMax().
  size_t Finish(absl::Span<std::byte> out);

 private:
  struct Part {
    RansRun run;
    const uint8_t* symbols;
  };

  Isa isa_;
  size_t steps_ = 0;
  std::vector<Part> parts_;
};

class RansDecoder;

// What a decoder is to decode next, and where to.
struct RansJob {
  RansDecoder* decoder = nullptr;
  RansRun run;
  uint8_t* out = nullptr;
};

// Decodes a stream, run by run, from bytes that nobody vouches for. Bad bytes
// give some symbols, the same for every `isa`, never a read outside them;
// Finish tells. Does not own the bytes. Thread-compatible.
class RansDecoder {
 public:
  // REQUIRES: Supports(isa).
  explicit RansDecoder(absl::Span<const std::byte> stream, Isa isa = BestIsa());
  RansDecoder(const RansDecoder&) = delete;
  RansDecoder& operator=(const RansDecoder&) = delete;

  // Writes the next run.symbols() symbols, in the order of AddRun.
  void DecodeRun(const RansRun& run, uint8_t* out);

  // DecodeRun of two decoders, with `stride` bytes from one step's symbols to
  // the next's: 1.7 times as fast as one after the other, as a step waits for
  // its table entries most of the time. REQUIRES: equally many steps.
  static void DecodePair(const RansJob& a, const RansJob& b,
                         size_t stride = kRansLanes);

  // DATA_LOSS unless the runs decoded are exactly those of the stream: all
  // states where an encoder starts, all words taken, none missing. Symbols that
  // were decoded before are only good if this is OK.
  absl::Status Finish() const;

 private:
  rans::DecodeStream StreamOf(const RansRun& run, uint8_t* out);
  // Takes note of how far a loop came; where it can go on from is in `stream`.
  void Continue(rans::DecodeStream* stream);
  void DecodeRest(rans::DecodeStream* stream, size_t steps, size_t stride);
  // The words not taken yet are fewer than a step may take: goes on in a copy
  // with zeros behind.
  void EnterTail();

  Isa isa_;
  // Too short to be a stream, a state below 2^16 or words missing.
  bool failed_ = false;
  bool in_tail_ = false;
  // Next word, and the last place where it may be when a step begins: a whole
  // step's words can be read from there.
  const std::byte* next_ = nullptr;
  const std::byte* last_start_ = nullptr;
  const std::byte* end_ = nullptr;
  alignas(64) std::array<uint32_t, kRansLanes> states_{};
  // Room for the last words and one step's behind them.
  alignas(64) std::array<std::byte, 4 * kRansLanes> tail_{};
};

// All of it under the names of entropy_coder.h.
struct RansCoder {
  using Table = RansTable;
  using Run = RansRun;
  using Encoder = RansEncoder;
  using Decoder = RansDecoder;
  using Job = RansJob;
  static constexpr int kLanes = kRansLanes;
  static constexpr size_t kSymbols = kRansSymbols;
  static constexpr uint32_t kTotal = kRansTotal;

  static std::array<uint16_t, kSymbols> Normalise(
      absl::Span<const uint32_t> counts) {
    return NormaliseCounts(counts);
  }
  static constexpr size_t BytesMax(size_t steps) { return RansBytesMax(steps); }
};
static_assert(EntropyCoder<RansCoder>);

}  // namespace kdn::codec

#endif  // KDN_CODEC_ENTROPY_RANS_H_
