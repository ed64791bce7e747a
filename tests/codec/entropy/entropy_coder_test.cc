// The requirements on an entropy coder, checked for rANS and for a simpler
// coder that could replace it.

#include "codec/entropy/entropy_coder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "codec/entropy/format_coder.h"

namespace kdn::codec {
namespace {

// A coder that copies the symbols.
struct PlainCoder {
  static constexpr int kLanes = 8;
  static constexpr size_t kSymbols = 256;
  static constexpr uint32_t kTotal = 65535;

  class Table {
   public:
    static absl::StatusOr<Table> Create(
        absl::Span<const uint16_t> frequencies) {
      if (frequencies.size() != kSymbols ||
          std::accumulate(frequencies.begin(), frequencies.end(),
                          uint32_t{0}) != kTotal) {
        return absl::InvalidArgumentError("no distribution");
      }
      Table table;
      std::copy_n(frequencies.begin(), kSymbols, table.frequencies_.begin());
      return table;
    }
    uint32_t frequency(uint8_t symbol) const { return frequencies_[symbol]; }

   private:
    std::array<uint16_t, kSymbols> frequencies_;
  };
  struct Run {
    size_t steps = 0;
    const Table* tables[2] = {nullptr, nullptr};
    int half_bit = -1;
    size_t symbols() const { return steps * kLanes; }
  };
  class Encoder {
   public:
    void AddRun(const Run& run, const uint8_t* symbols) {
      bytes_.insert(bytes_.end(), symbols, symbols + run.symbols());
    }
    size_t BytesMax() const { return bytes_.size(); }
    size_t Finish(absl::Span<std::byte> out) {
      std::memcpy(out.data(), bytes_.data(), bytes_.size());
      return bytes_.size();
    }

   private:
    std::vector<uint8_t> bytes_;
  };
  class Decoder;
  struct Job {
    Decoder* decoder = nullptr;
    Run run;
    uint8_t* out = nullptr;
  };
  class Decoder {
   public:
    Decoder(absl::Span<const std::byte> stream, Isa) : left_(stream) {}
    void DecodeRun(const Run& run, uint8_t* out) { Decode(run, out, kLanes); }
    static void DecodePair(const Job& a, const Job& b, size_t stride) {
      a.decoder->Decode(a.run, a.out, stride);
      b.decoder->Decode(b.run, b.out, stride);
    }
    absl::Status Finish() const {
      return failed_ || !left_.empty() ? absl::DataLossError("another length")
                                       : absl::OkStatus();
    }

   private:
    void Decode(const Run& run, uint8_t* out, size_t stride) {
      for (size_t step = 0; step < run.steps; ++step, out += stride) {
        failed_ = failed_ || left_.size() < kLanes;
        if (failed_) return;
        std::memcpy(out, left_.data(), kLanes);
        left_.remove_prefix(kLanes);
      }
    }
    absl::Span<const std::byte> left_;
    bool failed_ = false;
  };
  static std::array<uint16_t, kSymbols> Normalise(
      absl::Span<const uint32_t> counts) {
    std::array<uint16_t, kSymbols> frequencies{};
    const auto used = [](uint32_t count) { return count > 0; };
    for (size_t s = 0; s < kSymbols; ++s) frequencies[s] = used(counts[s]);
    const auto rest =
        kTotal - std::count_if(counts.begin(), counts.end(), used);
    const auto first = std::find_if(counts.begin(), counts.end(), used);
    frequencies[first - counts.begin()] += static_cast<uint16_t>(rest);
    return frequencies;
  }
  static constexpr size_t BytesMax(size_t steps) { return steps * kLanes; }
};
static_assert(EntropyCoder<PlainCoder>);

struct NoTables : PlainCoder {
  using Table = int;
};
static_assert(!EntropyCoder<NoTables>);

// Runs with one table and with two, their symbols, and their stream.
template <typename Coder>
struct Message {
  explicit Message(uint32_t seed) {
    std::mt19937 rng(seed);
    std::geometric_distribution<int> geometric(0.1);
    std::array<uint32_t, Coder::kSymbols> counts{};
    for (size_t steps : {1, 40, 3}) {
      runs.push_back({});
      runs.back().steps = steps;
      symbols.emplace_back(runs.back().symbols());
      for (uint8_t& symbol : symbols.back()) {
        symbol = static_cast<uint8_t>(std::min(geometric(rng), 255));
        ++counts[symbol];
      }
    }
    const std::vector<uint32_t> even(Coder::kSymbols, 1);
    tables.push_back(*Coder::Table::Create(Coder::Normalise(counts)));
    tables.push_back(*Coder::Table::Create(Coder::Normalise(even)));
    typename Coder::Encoder encoder;
    for (size_t i = 0; i < runs.size(); ++i) {
      runs[i].tables[0] = &tables[0];
      runs[i].tables[1] = &tables[1];
      runs[i].half_bit = static_cast<int>(i) - 1;
      encoder.AddRun(runs[i], symbols[i].data());
    }
    stream.resize(encoder.BytesMax());
    EXPECT_EQ(stream.size(), Coder::BytesMax(44));
    stream.resize(encoder.Finish(absl::MakeSpan(stream)));
  }

  std::vector<typename Coder::Table> tables;
  std::vector<typename Coder::Run> runs;
  std::vector<std::vector<uint8_t>> symbols;
  std::vector<std::byte> stream;
};

template <typename Coder>
class EntropyCoderTest : public testing::Test {
 protected:
  using Run = typename Coder::Run;
  using Decoder = typename Coder::Decoder;

  static absl::Status Decode(absl::Span<const std::byte> stream,
                             absl::Span<const Run> runs) {
    Decoder decoder(stream, BestIsa());
    for (const Run& run : runs) {
      std::vector<uint8_t> out(run.symbols());
      decoder.DecodeRun(run, out.data());
    }
    return decoder.Finish();
  }
};
using Coders = testing::Types<FormatCoder, PlainCoder>;
TYPED_TEST_SUITE(EntropyCoderTest, Coders);

TYPED_TEST(EntropyCoderTest, GivesSymbolsBackInPartsOfRuns) {
  const Message<TypeParam> message(1);
  for (size_t part : {1, 7, 100}) {
    typename TypeParam::Decoder decoder(message.stream, BestIsa());
    for (size_t i = 0; i < message.runs.size(); ++i) {
      std::vector<uint8_t> decoded(message.runs[i].symbols());
      typename TypeParam::Run run = message.runs[i];
      for (size_t done = 0; done < message.runs[i].steps; done += run.steps) {
        run.steps = std::min(part, message.runs[i].steps - done);
        decoder.DecodeRun(run, decoded.data() + done * TypeParam::kLanes);
      }
      EXPECT_EQ(decoded, message.symbols[i]);
    }
    EXPECT_TRUE(decoder.Finish().ok());
  }
}

TYPED_TEST(EntropyCoderTest, GivesPairsBackStepByStep) {
  const Message<TypeParam> a(2);
  const Message<TypeParam> b(3);
  typename TypeParam::Decoder from_a(a.stream, BestIsa());
  typename TypeParam::Decoder from_b(b.stream, BestIsa());
  constexpr size_t kLanes = TypeParam::kLanes;
  for (size_t i = 0; i < a.runs.size(); ++i) {
    std::vector<uint8_t> both(2 * a.runs[i].symbols());
    TypeParam::Decoder::DecodePair({&from_a, a.runs[i], both.data()},
                                   {&from_b, b.runs[i], both.data() + kLanes},
                                   2 * kLanes);
    std::vector<uint8_t> expected;
    for (size_t at = 0; at < a.symbols[i].size(); at += kLanes) {
      for (const auto* symbols : {&a.symbols[i], &b.symbols[i]}) {
        expected.insert(expected.end(), symbols->begin() + at,
                        symbols->begin() + at + kLanes);
      }
    }
    EXPECT_EQ(both, expected);
  }
  EXPECT_TRUE(from_a.Finish().ok());
  EXPECT_TRUE(from_b.Finish().ok());
}

TYPED_TEST(EntropyCoderTest, OtherRunsThanTheEncodersAreDataLoss) {
  const Message<TypeParam> message(4);
  const auto data_loss = absl::StatusCode::kDataLoss;
  EXPECT_EQ(this->Decode(message.stream, message.runs), absl::OkStatus());
  for (size_t bytes = 0; bytes < message.stream.size(); ++bytes) {
    const std::vector<std::byte> part(message.stream.begin(),
                                      message.stream.begin() + bytes);
    EXPECT_EQ(this->Decode(part, message.runs).code(), data_loss) << bytes;
  }
  std::vector<std::byte> longer = message.stream;
  longer.resize(longer.size() + 2);
  EXPECT_EQ(this->Decode(longer, message.runs).code(), data_loss);
  auto runs = message.runs;
  runs.back().steps -= 1;
  EXPECT_EQ(this->Decode(message.stream, runs).code(), data_loss);
  runs.back().steps += 2;
  EXPECT_EQ(this->Decode(message.stream, runs).code(), data_loss);
}

TYPED_TEST(EntropyCoderTest, TablesAreDistributions) {
  std::array<uint32_t, TypeParam::kSymbols> counts{};
  counts[7] = 1;
  counts[200] = 1u << 31;
  auto frequencies = TypeParam::Normalise(counts);
  const auto table = TypeParam::Table::Create(frequencies);
  ASSERT_TRUE(table.ok()) << table.status();
  uint32_t sum = 0;
  for (size_t s = 0; s < TypeParam::kSymbols; ++s) {
    const uint32_t frequency = table->frequency(static_cast<uint8_t>(s));
    EXPECT_EQ(frequency > 0, s == 7 || s == 200);
    sum += frequency;
  }
  EXPECT_EQ(sum, TypeParam::kTotal);
  --frequencies[200];
  EXPECT_EQ(TypeParam::Table::Create(frequencies).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace kdn::codec
