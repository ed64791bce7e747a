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
#include "kv/isa.h"

// Entropy coding of 8-bit symbols: 32 range-ANS coders (Duda, arXiv 1311.2540)
// share the words of one stream (Giesen, "Interleaved entropy coders", arXiv
// 1402.3392), so that a vector unit or a CUDA warp (one lane for each thread)
// decodes 32 symbols at a time. The coded size is the cross entropy of symbols
// and frequencies, plus 128 bytes, plus some 0.01 %.
//
// Symbols come in runs of steps. A step is one symbol for each lane L, 0 to 31.
// Lane L of a run uses the frequencies of tables[(L >> half_bit) & 1]. Lanes
// keep their states from run to run. The stream does not describe runs and
// tables: encoder and decoder know them.
//
// A table gives each symbol s a frequency f[s], 0 to 4096; the sum is 4096. The
// symbol has the f[s] slots from start[s] = f[0] + ... + f[s - 1] on.
//
// The stream, little-endian, without gaps:
//   32 x u32   state x of each lane, every one in [2^16, 2^32)
//   n x u16    words
// A step, for every lane:
//   slot = x & 4095;  s = the symbol that has this slot
//   x = f[s] * (x >> 12) + slot - start[s];  s is the lane's symbol
// and then, in ascending order, each lane with x < 2^16 takes the next word:
//   x = x << 16 | word
// After the last step of the last run every x is 2^16 and no word is left. The
// encoder starts there and goes backwards: if x >= f * 2^20, it writes the low
// 16 bits of x as a word and shifts x right by 16; then
//   x = (x / f) * 4096 + x % f + start
namespace kdn::codec {

namespace rans {
struct DecodeStream;
}  // namespace rans

inline constexpr int kRansLanes = 32;
inline constexpr size_t kRansSymbols = 256;
// Sum of a table's frequencies.
inline constexpr uint32_t kRansTotal = 4096;

// Frequencies, sum kRansTotal, that code symbols with these counts in few bits.
// A count above zero gets a frequency of at least 1. Single units are then
// added where they shorten the code most, or taken where that lengthens it
// least, until the sum is right. Integer arithmetic: the same on every machine.
// REQUIRES: kRansSymbols counts, not all zero.
std::array<uint16_t, kRansSymbols> NormaliseCounts(
    absl::Span<const uint32_t> counts);

// The frequencies of one run's symbols, in the forms that coding needs. A value
// of 19 KB. Immutable, so thread-safe.
class alignas(64) RansTable {
 public:
  // INVALID_ARGUMENT unless there are kRansSymbols frequencies that add up to
  // kRansTotal.
  static absl::StatusOr<RansTable> Create(
      absl::Span<const uint16_t> frequencies);

  // For decoders: kRansTotal entries, aligned to 64 bytes, one for each slot.
  // Bits 0 to 7 are the symbol, 8 to 19 frequency - 1, 20 to 31 slot - start.
  const uint32_t* decode_entries() const { return decode_.data(); }
  // For encoders: kRansSymbols entries, start | frequency << 16.
  const uint32_t* encode_entries() const { return encode_.data(); }
  // For encoders: kRansSymbols entries, ceil(2^44 / frequency), or 0 if the
  // frequency is 0.
  const uint64_t* reciprocals() const { return reciprocals_.data(); }

  uint32_t frequency(uint8_t symbol) const { return encode_[symbol] >> 16; }

 private:
  RansTable() = default;

  std::array<uint32_t, kRansTotal> decode_;
  std::array<uint32_t, kRansSymbols> encode_;
  std::array<uint64_t, kRansSymbols> reciprocals_;
};

// The length and the tables of a run. Does not own the tables, which must
// outlive the coder. Two tables of one run decode fastest if they lie in one
// array.
struct RansRun {
  size_t steps = 0;
  const RansTable* tables[2] = {nullptr, nullptr};
  // 0 to 4: lane L uses tables[(L >> half_bit) & 1]. -1: tables[0] for all.
  int half_bit = -1;

  size_t symbols() const { return steps * kRansLanes; }
};

// Upper bound in bytes of a stream of `steps` steps, all runs together. A
// symbol multiplies a state by at most 4096 (frequency 1), and by at most 17/16
// through rounding, because x >= 16 f after a word is written:
// log2(4096 * 17/16) < 12.25 bits. A state starts at 2^16 and ends no lower, so
// its words have at most these bits.
constexpr size_t RansBytesMax(size_t steps) {
  return sizeof(uint32_t) * kRansLanes +
         sizeof(uint16_t) * kRansLanes * (steps * 49 / 64);
}

// Collects runs and writes their stream. Thread-compatible.
class RansEncoder {
 public:
  // REQUIRES: Supports(isa). The stream is the same for every `isa`.
  explicit RansEncoder(Isa isa = BestIsa());

  // Appends run.symbols() symbols, [step][lane]. Copies neither symbols nor
  // tables: both must live until Finish. REQUIRES: the run's tables give each
  // symbol a frequency above 0; half_bit is in range.
  void AddRun(const RansRun& run, const uint8_t* symbols);

  // RansBytesMax of all steps added so far.
  size_t BytesMax() const { return RansBytesMax(steps_); }

  // Writes the stream, returns its length in bytes and forgets the runs. May
  // overwrite all of `out`. REQUIRES: out.size() >= BytesMax().
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

// The next run of a decoder, and where its symbols go.
struct RansJob {
  RansDecoder* decoder = nullptr;
  RansRun run;
  uint8_t* out = nullptr;
};

// Decodes a stream, run by run, from untrusted bytes. Damaged bytes give wrong
// symbols, the same for every `isa`, and never cause a read outside the bytes;
// Finish tells whether an encoder can have written the bytes. Does not own the
// bytes. Thread-compatible.
class RansDecoder {
 public:
  // REQUIRES: Supports(isa).
  explicit RansDecoder(absl::Span<const std::byte> stream, Isa isa = BestIsa());
  RansDecoder(const RansDecoder&) = delete;
  RansDecoder& operator=(const RansDecoder&) = delete;

  // Writes the next run.symbols() symbols, in the order of AddRun.
  void DecodeRun(const RansRun& run, uint8_t* out);

  // DecodeRun of two decoders, with `stride` bytes from the symbols of one step
  // to those of the next. 1.7 times as fast as one after the other, because a
  // step mostly waits for its table entries. REQUIRES: both runs have the same
  // number of steps.
  static void DecodePair(const RansJob& a, const RansJob& b,
                         size_t stride = kRansLanes);

  // DATA_LOSS unless the decoded runs are exactly those of the stream: every
  // state is the encoder's first one, all words are taken, and none is missing.
  // The decoded symbols are good only if this is OK.
  absl::Status Finish() const;

 private:
  rans::DecodeStream StreamOf(const RansRun& run, uint8_t* out);
  // Takes over the position that a loop has reached. Moves `stream` into the
  // tail when the loop can go on only there.
  void Continue(rans::DecodeStream* stream);
  void DecodeRest(rans::DecodeStream* stream, size_t steps, size_t stride);
  // Copies the last words, fewer than a step may take, into tail_, where zeros
  // follow them.
  void EnterTail();

  Isa isa_;
  // The stream is too short, a state is below 2^16, or words are missing.
  bool failed_ = false;
  bool in_tail_ = false;
  // The next word, and the last position of next_ from which all words that a
  // step may take can be read.
  const std::byte* next_ = nullptr;
  const std::byte* last_start_ = nullptr;
  const std::byte* end_ = nullptr;
  alignas(64) std::array<uint32_t, kRansLanes> states_{};
  // Room for the last words, and for the words that one step may read after
  // them.
  alignas(64) std::array<std::byte, 4 * kRansLanes> tail_{};
};

// The rANS coder under the names of entropy_coder.h.
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
