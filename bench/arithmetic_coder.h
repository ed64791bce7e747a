#ifndef KDN_BENCH_ARITHMETIC_CODER_H_
#define KDN_BENCH_ARITHMETIC_CODER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace kdn::bench {

// Cumulative frequencies of symbols 0, 1, ..., n - 1: n + 1 numbers from 0 to
// kTotal, every symbol at least 1.
class FrequencyTable {
 public:
  static constexpr uint32_t kTotal = 1u << 16;
  // Scales the counts of a message's symbols, one count per symbol, to kTotal.
  // REQUIRES: 1 to kTotal - 1 symbols.
  explicit FrequencyTable(absl::Span<const uint32_t> counts);

  uint32_t Low(int symbol) const { return cumulative_[symbol]; }
  uint32_t High(int symbol) const { return cumulative_[symbol + 1]; }
  // The symbol whose range holds `value`. REQUIRES: value < kTotal.
  int Find(uint32_t value) const;

 private:
  std::vector<uint32_t> cumulative_;
};

// Arithmetic coding of one message with one static table, bit by bit, in 32-bit
// arithmetic (Witten, Neal, Cleary 1987). CacheGen's public code codes each
// layer and channel so. It is slow, and serves for comparison only.
std::vector<uint8_t> ArithmeticEncode(const FrequencyTable& table,
                                      absl::Span<const uint8_t> symbols);
// Decodes `count` symbols. Bytes that no encoder made decode to arbitrary
// symbols.
std::vector<uint8_t> ArithmeticDecode(const FrequencyTable& table,
                                      absl::Span<const uint8_t> bytes,
                                      size_t count);

}  // namespace kdn::bench

#endif  // KDN_BENCH_ARITHMETIC_CODER_H_
