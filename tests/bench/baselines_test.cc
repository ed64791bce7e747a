#include "bench/baselines.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <random>

#include "bench/arithmetic_coder.h"

namespace kdn::bench {
namespace {

double EntropyBits(const std::vector<uint32_t>& counts) {
  double sum = 0;
  double bits = 0;
  for (uint32_t count : counts) sum += count;
  for (uint32_t count : counts) {
    if (count > 0) bits -= count * std::log2(count / sum);
  }
  return bits;
}

TEST(ArithmeticCoder, GivesBackAnyMessageAtItsEntropy) {
  for (uint32_t seed = 0; seed < 50; ++seed) {
    std::mt19937 random(seed);
    const size_t alphabet = 1 + random() % 40;
    const size_t length = random() % 3000;
    std::geometric_distribution<int> skewed(0.05 + 0.01 * (random() % 90));
    std::vector<uint8_t> message(length);
    std::vector<uint32_t> counts(alphabet);
    for (uint8_t& symbol : message) {
      symbol = static_cast<uint8_t>(skewed(random) % alphabet);
      ++counts[symbol];
    }
    const FrequencyTable table(counts);
    const std::vector<uint8_t> bytes = ArithmeticEncode(table, message);
    EXPECT_EQ(ArithmeticDecode(table, bytes, length), message) << seed;
    EXPECT_LE(8.0 * bytes.size(), 1.01 * EntropyBits(counts) + 16) << seed;
  }
}

TEST(ArithmeticCoder, AnyBytesDecodeToSomething) {
  std::mt19937 random(5);
  const FrequencyTable table({3, 0, 90, 1});
  for (int i = 0; i < 200; ++i) {
    std::vector<uint8_t> bytes(random() % 20);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    for (const uint8_t symbol : ArithmeticDecode(table, bytes, 50)) {
      EXPECT_LT(symbol, 4);
    }
  }
}

KvTensor RandomKv(const KvShape& shape) {
  KvTensor kv(shape);
  std::mt19937 random(9);
  std::normal_distribution<float> normal;
  for (float& x : kv.values()) x = normal(random);
  return kv;
}

TEST(CacheGen, ErrsByAtMostHalfABinOfTheTokensLargestValue) {
  const KvTensor kv = RandomKv({3, 3, 70, 16, Dtype::kBf16});
  size_t last = 0;
  for (int level = 1; level <= 3; ++level) {
    const absl::StatusOr<Coded> coded = CacheGen(kv, level);
    ASSERT_TRUE(coded.ok());
    EXPECT_GT(coded->bytes, last) << "finer levels are larger";
    last = coded->bytes;
    const float half_bin = 0.5f / (level == 1 ? 7 : 15);
    for (int token = 0; token < 70; ++token) {
      float largest = 0;
      for (int head = 0; head < 3; ++head) {
        for (float x : kv.Row(0, KvPart::kK, head, token)) {
          largest = std::max(largest, std::fabs(x));
        }
      }
      for (int head = 0; head < 3; ++head) {
        for (int dim = 0; dim < 16; ++dim) {
          EXPECT_NEAR(coded->kv.Row(0, KvPart::kK, head, token)[dim],
                      kv.Row(0, KvPart::kK, head, token)[dim],
                      1.002f * half_bin * largest);
        }
      }
    }
  }
  EXPECT_FALSE(CacheGen(kv, 4).ok());
}

TEST(CacheGen, RoundsHalvesToTheEvenSymbol) {
  KvTensor kv({1, 1, 1, 6, Dtype::kBf16});
  const float values[] = {30, 1, 3, -3, 5, -5};  // a bin is 2 wide
  for (const KvPart part : {KvPart::kK, KvPart::kV}) {
    std::copy(std::begin(values), std::end(values),
              kv.Row(0, part, 0, 0).begin());
  }
  const absl::StatusOr<Coded> coded = CacheGen(kv, 3);
  ASSERT_TRUE(coded.ok());
  const float expected[] = {30, 2, 2, -2, 6, -6};
  for (int dim = 0; dim < 6; ++dim) {
    EXPECT_NEAR(coded->kv.Row(0, KvPart::kK, 0, 0)[dim], expected[dim], 1e-5f);
    EXPECT_NEAR(coded->kv.Row(0, KvPart::kV, 0, 0)[dim], expected[dim], 1e-5f);
  }
}

// The symbols are coded without loss, so the tables decide the size only.
TEST(CacheGen, TablesOfTheModelAreNotChargedToAChunk) {
  const KvTensor kv = RandomKv({2, 2, 200, 16, Dtype::kBf16});
  for (int level = 1; level <= 3; ++level) {
    const absl::StatusOr<Coded> alone = CacheGen(kv, level);
    ASSERT_TRUE(alone.ok());
    CacheGenTables tables(kv.shape(), level);
    tables.Count(kv.Tokens(0, 120));
    tables.Count(kv.Tokens(120, 80));
    const Coded trained = CacheGen(kv, tables);
    EXPECT_EQ(trained.kv.values(), alone->kv.values());
    const size_t channels = 2 * 2 * 2 * 16;
    const size_t symbols = level == 1 ? 15 : 31;  // of the first layer, at most
    EXPECT_LT(trained.bytes, alone->bytes);
    EXPECT_LE(alone->bytes - trained.bytes, channels * 2 * symbols);
    // Tables of another sample cost bits, not values.
    CacheGenTables other(kv.shape(), level);
    const Coded untrained = CacheGen(kv, other);
    EXPECT_EQ(untrained.kv.values(), alone->kv.values());
    EXPECT_GT(untrained.bytes, trained.bytes);
  }
}

TEST(Kivi, CountsItsBitsScalesAndMinima) {
  const KvTensor kv = RandomKv({1, 2, 64, 32, Dtype::kBf16});
  for (int bits : {2, 4}) {
    const Coded coded = Kivi(kv, bits);
    EXPECT_EQ(coded.bytes, kv.size() * (bits + 1) / 8)
        << "scale and minimum add 32 bits per 32 values, so 1 bit per value";
    double error = 0;
    for (size_t i = 0; i < kv.size(); ++i) {
      error =
          std::max(error, std::fabs(static_cast<double>(coded.kv.values()[i]) -
                                    kv.values()[i]));
    }
    EXPECT_LT(error, 0.51 * 8.0 / ((1 << bits) - 1)) << "values within 4 sigma";
  }
}

TEST(KvTensor, TokensComeBackWhereTheyWere) {
  const KvTensor kv = RandomKv({2, 2, 10, 4, Dtype::kFp32});
  KvTensor copy(kv.shape());
  copy.Place(0, kv.Tokens(0, 3));
  copy.Place(3, kv.Tokens(3, 7));
  EXPECT_EQ(copy.values(), kv.values());
  std::vector<std::byte> memory(kv.shape().bytes());
  const KvStrides strides = KvStrides::TokenMajor(kv.shape());
  kv.Store(MutableKvView(memory.data(), kv.shape(), strides));
  EXPECT_EQ(KvTensor::Of(KvView(memory.data(), kv.shape(), strides)).values(),
            kv.values());
}

}  // namespace
}  // namespace kdn::bench
