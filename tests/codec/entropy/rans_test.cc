#include "codec/entropy/rans.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <string>

#include "tests/codec/supported_isas.h"

namespace kdn::codec {
namespace {

std::array<uint32_t, kRansSymbols> CountsOf(
    const std::vector<uint8_t>& symbols) {
  std::array<uint32_t, kRansSymbols> counts{};
  for (uint8_t symbol : symbols) ++counts[symbol];
  return counts;
}

RansTable TableOf(const std::vector<uint8_t>& symbols) {
  return *RansTable::Create(NormaliseCounts(CountsOf(symbols)));
}

double EntropyBits(const std::vector<uint8_t>& symbols) {
  double bits = 0.0;
  for (uint32_t count : CountsOf(symbols)) {
    if (count > 0) bits -= count * std::log2(count / double(symbols.size()));
  }
  return bits;
}

// Symbols of a rounded Gaussian. sigma 0 gives one symbol, a large sigma all
// 256.
std::vector<uint8_t> Gaussian(size_t count, double sigma, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<double> normal(128.0, sigma);
  std::vector<uint8_t> symbols(count);
  for (uint8_t& symbol : symbols) {
    const double value = sigma > 0.0 ? std::round(normal(rng)) : 77.0;
    symbol = static_cast<uint8_t>(std::clamp(value, 0.0, 255.0));
  }
  return symbols;
}

// Runs, their symbols and their tables.
struct Message {
  std::vector<RansTable> tables;
  std::vector<RansRun> runs;
  std::vector<std::vector<uint8_t>> symbols;

  std::vector<uint8_t> All() const {
    std::vector<uint8_t> all;
    for (const auto& run : symbols) {
      all.insert(all.end(), run.begin(), run.end());
    }
    return all;
  }
};

Message OneRun(const std::vector<uint8_t>& symbols) {
  Message message;
  message.tables = {TableOf(symbols)};
  message.runs = {{.steps = symbols.size() / kRansLanes,
                   .tables = {&message.tables[0], nullptr},
                   .half_bit = -1}};
  message.symbols = {symbols};
  return message;
}

// Runs of many lengths, 0 included, with tables of very different entropies.
// Each lane has symbols of its own table.
Message ManyRuns(uint32_t seed) {
  std::mt19937 rng(seed);
  Message message;
  std::vector<std::vector<uint8_t>> sources;
  for (double sigma : {0.0, 0.3, 2.0, 9.0, 80.0}) {
    sources.push_back(Gaussian(4096, sigma, rng()));
    message.tables.push_back(TableOf(sources.back()));
  }
  for (int i = 0; i < 40; ++i) {
    const size_t first = rng() % sources.size();
    const size_t second = rng() % sources.size();
    const RansRun run = {
        .steps = rng() % (i % 3 == 0 ? 3 : 60),
        .tables = {&message.tables[first], &message.tables[second]},
        .half_bit = static_cast<int>(rng() % 6) - 1};
    std::vector<uint8_t> symbols(run.symbols());
    for (size_t at = 0; at < symbols.size(); ++at) {
      const bool other =
          run.half_bit >= 0 && (at % kRansLanes >> run.half_bit & 1) != 0;
      const auto& source = sources[other ? second : first];
      symbols[at] = source[rng() % source.size()];
    }
    message.runs.push_back(run);
    message.symbols.push_back(symbols);
  }
  return message;
}

std::vector<std::byte> Encode(const Message& message, Isa isa) {
  RansEncoder encoder(isa);
  for (size_t i = 0; i < message.runs.size(); ++i) {
    encoder.AddRun(message.runs[i], message.symbols[i].data());
  }
  std::vector<std::byte> stream(encoder.BytesMax());
  stream.resize(encoder.Finish(absl::MakeSpan(stream)));
  return stream;
}

struct Decoded {
  std::vector<uint8_t> symbols;
  absl::Status status;
};

Decoded Decode(const std::vector<std::byte>& stream,
               const std::vector<RansRun>& runs, Isa isa) {
  RansDecoder decoder(stream, isa);
  Decoded decoded;
  for (const RansRun& run : runs) {
    // Memory of exactly the run's size, so that a sanitizer sees an overrun.
    std::vector<uint8_t> symbols(run.symbols());
    decoder.DecodeRun(run, symbols.data());
    decoded.symbols.insert(decoded.symbols.end(), symbols.begin(),
                           symbols.end());
  }
  decoded.status = decoder.Finish();
  return decoded;
}

void ExpectRoundTrip(const Message& message) {
  const std::vector<std::byte> stream = Encode(message, Isa::kScalar);
  for (Isa isa : IsasUnderTest()) {
    SCOPED_TRACE(static_cast<int>(isa));
    EXPECT_EQ(Encode(message, isa), stream);
    const Decoded decoded = Decode(stream, message.runs, isa);
    EXPECT_TRUE(decoded.status.ok()) << decoded.status;
    EXPECT_EQ(decoded.symbols, message.All());
  }
}

TEST(Rans, RoundTripsOverAlphabetsAndLengths) {
  for (double sigma : {0.0, 0.2, 0.5, 1.0, 4.0, 16.0, 200.0}) {
    for (size_t steps : {0, 1, 2, 31, 32, 33, 1000}) {
      SCOPED_TRACE(testing::Message()
                   << "sigma " << sigma << " steps " << steps << " seed 3");
      auto symbols = Gaussian(steps * kRansLanes, sigma, 3);
      if (steps == 0) {
        Message nothing = OneRun(Gaussian(kRansLanes, sigma, 3));
        nothing.runs[0].steps = 0;
        nothing.symbols[0].clear();
        ExpectRoundTrip(nothing);
      } else {
        ExpectRoundTrip(OneRun(symbols));
      }
    }
  }
}

TEST(Rans, RoundTripsManyRunsOverPairsOfTables) {
  for (uint32_t seed = 10; seed < 30; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    ExpectRoundTrip(ManyRuns(seed));
  }
}

// A symbol costs most with frequency 1. Either all symbols of the message have
// frequency 1, or none has.
TEST(Rans, WorstCaseFitsTheBound) {
  std::vector<uint16_t> frequencies(kRansSymbols, 0);
  frequencies[255] = 1;
  frequencies[0] = kRansTotal - 1;
  for (uint8_t symbol : {0, 255}) {
    Message message;
    message.tables = {*RansTable::Create(frequencies)};
    message.symbols = {std::vector<uint8_t>(5000 * kRansLanes, symbol)};
    message.runs = {{.steps = 5000,
                     .tables = {&message.tables[0], nullptr},
                     .half_bit = -1}};
    ExpectRoundTrip(message);
  }
}

TEST(Rans, TablesMayLieAnywhere) {
  const auto symbols = Gaussian(64 * kRansLanes, 3.0, 4);
  // Stack and heap are usually too far apart for a vector's 32-bit index.
  const RansTable on_stack = TableOf(symbols);
  const auto on_heap = std::make_unique<RansTable>(on_stack);
  Message message;
  message.symbols = {symbols};
  message.runs = {
      {.steps = 64, .tables = {&on_stack, on_heap.get()}, .half_bit = 1}};
  ExpectRoundTrip(message);
}

TEST(Rans, CodesCloseToTheEntropy) {
  const size_t count = 1 << 20;
  for (double sigma : {0.4, 1.0, 3.0, 10.0, 30.0}) {
    const auto symbols = Gaussian(count, sigma, 5);
    const size_t bytes = Encode(OneRun(symbols), BestIsa()).size();
    EXPECT_LT(bytes, 1.01 * EntropyBits(symbols) / 8 + 128) << sigma;
  }
}

TEST(Rans, OneSymbolCostsNothing) {
  EXPECT_EQ(Encode(OneRun(Gaussian(32768, 0.0, 6)), BestIsa()).size(), 128);
}

// Decoding two streams as a pair gives the same as decoding each alone, damaged
// or not.
void ExpectPairs(const std::vector<std::byte>& stream_a,
                 const std::vector<RansRun>& runs_a,
                 const std::vector<std::byte>& stream_b,
                 const std::vector<RansRun>& runs_b, Isa isa) {
  const Decoded alone_a = Decode(stream_a, runs_a, isa);
  const Decoded alone_b = Decode(stream_b, runs_b, isa);
  RansDecoder a(stream_a, isa);
  RansDecoder b(stream_b, isa);
  size_t at = 0;
  for (size_t i = 0; i < runs_a.size(); ++i) {
    const size_t symbols = runs_a[i].symbols();
    std::vector<uint8_t> both(2 * symbols);
    RansDecoder::DecodePair({&a, runs_a[i], both.data()},
                            {&b, runs_b[i], both.data() + kRansLanes},
                            2 * kRansLanes);
    for (size_t j = 0; j < symbols; ++j) {
      const size_t place = j / kRansLanes * 2 * kRansLanes + j % kRansLanes;
      ASSERT_EQ(both[place], alone_a.symbols[at + j]);
      ASSERT_EQ(both[place + kRansLanes], alone_b.symbols[at + j]);
    }
    at += symbols;
  }
  EXPECT_EQ(a.Finish(), alone_a.status);
  EXPECT_EQ(b.Finish(), alone_b.status);
}

TEST(Rans, DecodesPairs) {
  for (uint32_t seed = 40; seed < 50; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 rng(seed);
    const Message a = ManyRuns(seed);
    std::vector<std::byte> stream_a = Encode(a, BestIsa());
    // The same runs with other symbols and with the first table only, so that
    // the streams differ in length.
    Message b = a;
    for (size_t i = 0; i < b.runs.size(); ++i) {
      b.runs[i].half_bit = -1;
      const auto& table = *b.runs[i].tables[0];
      for (uint8_t& symbol : b.symbols[i]) {
        symbol = static_cast<uint8_t>(table.decode_entries()[rng() % 4096]);
      }
    }
    std::vector<std::byte> stream_b = Encode(b, BestIsa());
    for (Isa isa : IsasUnderTest()) {
      ExpectPairs(stream_a, a.runs, stream_b, b.runs, isa);
    }
    // One stream is damaged, then both.
    stream_b.resize(stream_b.size() / 4 * 2);
    for (Isa isa : IsasUnderTest()) {
      ExpectPairs(stream_a, a.runs, stream_b, b.runs, isa);
    }
    stream_a.resize(100);
    for (Isa isa : IsasUnderTest()) {
      ExpectPairs(stream_a, a.runs, stream_b, b.runs, isa);
    }
  }
}

// Damaged bytes give the same symbols and the same status with every
// instruction set.
Decoded DecodeEverywhere(const std::vector<std::byte>& stream,
                         const std::vector<RansRun>& runs) {
  const Decoded scalar = Decode(stream, runs, Isa::kScalar);
  for (Isa isa : IsasUnderTest()) {
    const Decoded decoded = Decode(stream, runs, isa);
    EXPECT_EQ(decoded.symbols, scalar.symbols);
    EXPECT_EQ(decoded.status, scalar.status);
  }
  return scalar;
}

TEST(Rans, EveryTruncationIsFound) {
  const Message message = ManyRuns(7);
  const std::vector<std::byte> stream = Encode(message, BestIsa());
  for (size_t bytes = 0; bytes < stream.size();
       bytes += bytes < 300 || bytes + 300 > stream.size() ? 1 : 97) {
    const std::vector<std::byte> part(stream.begin(), stream.begin() + bytes);
    EXPECT_TRUE(absl::IsDataLoss(DecodeEverywhere(part, message.runs).status))
        << bytes << " of " << stream.size();
  }
}

TEST(Rans, ExtraBytesAndMissingRunsAreFound) {
  Message message = ManyRuns(8);
  std::vector<std::byte> stream = Encode(message, BestIsa());
  stream.resize(stream.size() + 2);
  EXPECT_TRUE(absl::IsDataLoss(DecodeEverywhere(stream, message.runs).status));
  stream.resize(stream.size() - 2);
  message.runs.resize(message.runs.size() / 2);
  EXPECT_TRUE(absl::IsDataLoss(DecodeEverywhere(stream, message.runs).status));
}

TEST(Rans, RandomBytesAreFound) {
  std::mt19937 rng(9);
  const Message message = ManyRuns(9);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::byte> bytes(rng() % 2000);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng());
    EXPECT_TRUE(absl::IsDataLoss(DecodeEverywhere(bytes, message.runs).status))
        << "seed 9 round " << round;
  }
}

TEST(Rans, FlippedBitsAreFound) {
  std::mt19937 rng(10);
  const Message message = ManyRuns(10);
  const std::vector<std::byte> stream = Encode(message, BestIsa());
  for (int round = 0; round < 300; ++round) {
    std::vector<std::byte> flipped = stream;
    flipped[rng() % stream.size()] ^= std::byte{1} << rng() % 8;
    EXPECT_TRUE(
        absl::IsDataLoss(DecodeEverywhere(flipped, message.runs).status))
        << "seed 10 round " << round;
  }
}

TEST(RansDeathTest, SymbolsWithoutFrequencyAreABrokenInvariant) {
  Message message = OneRun(Gaussian(64 * kRansLanes, 0.0, 11));
  message.symbols[0][1000] = 5;
  for (Isa isa : IsasUnderTest()) {
    EXPECT_DEATH(Encode(message, isa), "without frequency");
  }
}

}  // namespace
}  // namespace kdn::codec
