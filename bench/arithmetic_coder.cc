#include "bench/arithmetic_coder.h"

#include <algorithm>
#include <numeric>

#include "kv/check.h"

namespace kdn::bench {
namespace {

constexpr uint32_t kHalf = 1u << 31;
constexpr uint32_t kQuarter = 1u << 30;

// The interval [low, high] that stands for the symbols coded so far.
struct Interval {
  uint32_t low = 0;
  uint32_t high = 0xffffffffu;

  void Narrow(const FrequencyTable& table, int symbol) {
    const uint64_t span = static_cast<uint64_t>(high) - low + 1;
    high = low + static_cast<uint32_t>(
                     span * table.High(symbol) / FrequencyTable::kTotal - 1);
    low += static_cast<uint32_t>(span * table.Low(symbol) /
                                 FrequencyTable::kTotal);
  }
  // Whether `low` and `high` have the same first bit.
  bool Settled() const { return high < kHalf || low >= kHalf; }
  // Whether the interval lies in the two middle quarters.
  bool Straddles() const { return low >= kQuarter && high < kHalf + kQuarter; }
  void Double(uint32_t offset) {
    low = (low - offset) << 1;
    high = ((high - offset) << 1) | 1u;
  }
};

class BitWriter {
 public:
  void Write(bool bit) {
    if (used_ % 8 == 0) bytes_.push_back(0);
    if (bit) bytes_.back() |= static_cast<uint8_t>(0x80u >> (used_ % 8));
    ++used_;
  }
  std::vector<uint8_t> Take() { return std::move(bytes_); }

 private:
  std::vector<uint8_t> bytes_;
  size_t used_ = 0;
};

// Reads bits; behind the last byte, all bits are 0.
class BitReader {
 public:
  explicit BitReader(absl::Span<const uint8_t> bytes) : bytes_(bytes) {}
  uint32_t Read() {
    const size_t at = next_++;
    if (at / 8 >= bytes_.size()) return 0;
    return (bytes_[at / 8] >> (7 - at % 8)) & 1u;
  }

 private:
  absl::Span<const uint8_t> bytes_;
  size_t next_ = 0;
};

}  // namespace

FrequencyTable::FrequencyTable(absl::Span<const uint32_t> counts) {
  KDN_CHECK(!counts.empty() && counts.size() < kTotal,
            "an alphabet has 1 to kTotal - 1 symbols");
  const uint64_t sum =
      std::accumulate(counts.begin(), counts.end(), uint64_t{0});
  // Every symbol gets 1; the remaining frequency is shared out by count.
  const uint64_t shared = kTotal - counts.size();
  cumulative_.push_back(0);
  uint64_t seen = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    seen += counts[i];
    const uint64_t part =
        sum == 0 ? shared * (i + 1) / counts.size() : shared * seen / sum;
    cumulative_.push_back(static_cast<uint32_t>(part + i + 1));
  }
}

int FrequencyTable::Find(uint32_t value) const {
  const auto above =
      std::upper_bound(cumulative_.begin(), cumulative_.end(), value);
  return static_cast<int>(above - cumulative_.begin()) - 1;
}

std::vector<uint8_t> ArithmeticEncode(const FrequencyTable& table,
                                      absl::Span<const uint8_t> symbols) {
  Interval interval;
  BitWriter out;
  size_t pending = 0;  // bits to write as the opposite of the next settled bit
  const auto write = [&](bool bit) {
    out.Write(bit);
    for (; pending > 0; --pending) out.Write(!bit);
  };
  for (const uint8_t symbol : symbols) {
    interval.Narrow(table, symbol);
    while (true) {
      if (interval.Settled()) {
        const bool bit = interval.low >= kHalf;
        write(bit);
        interval.Double(bit ? kHalf : 0);
      } else if (interval.Straddles()) {
        ++pending;
        interval.Double(kQuarter);
      } else {
        break;
      }
    }
  }
  ++pending;
  write(interval.low >= kQuarter);
  return out.Take();
}

std::vector<uint8_t> ArithmeticDecode(const FrequencyTable& table,
                                      absl::Span<const uint8_t> bytes,
                                      size_t count) {
  BitReader in(bytes);
  uint32_t code = 0;
  for (int i = 0; i < 32; ++i) code = (code << 1) | in.Read();
  Interval interval;
  std::vector<uint8_t> symbols;
  symbols.reserve(count);
  while (symbols.size() < count) {
    const uint64_t span =
        static_cast<uint64_t>(interval.high) - interval.low + 1;
    const uint64_t offset = static_cast<uint64_t>(code - interval.low) + 1;
    const int symbol = table.Find(
        static_cast<uint32_t>((offset * FrequencyTable::kTotal - 1) / span));
    symbols.push_back(static_cast<uint8_t>(symbol));
    interval.Narrow(table, symbol);
    while (true) {
      uint32_t offset_of_half = 0;
      if (interval.Settled()) {
        offset_of_half = interval.low >= kHalf ? kHalf : 0;
      } else if (interval.Straddles()) {
        offset_of_half = kQuarter;
      } else {
        break;
      }
      interval.Double(offset_of_half);
      code = ((code - offset_of_half) << 1) | in.Read();
    }
  }
  return symbols;
}

}  // namespace kdn::bench
