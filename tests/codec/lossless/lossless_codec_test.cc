#include "codec/lossless/lossless_codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <tuple>
#include <vector>

#include "codec/lossless/exponent_split.h"
#include "tests/codec/supported_isas.h"

namespace kdn::codec {
namespace {

constexpr Dtype kDtypes[] = {Dtype::kBf16, Dtype::kFp16, Dtype::kFp32};

StreamShape ShapeOf(Dtype dtype, int tokens, int head_dim) {
  return {.part = KvPart::kK,
          .heads = 1,
          .tokens = tokens,
          .head_dim = head_dim,
          .dtype = dtype};
}

// Standard normal values times a magnitude for each dimension, 2^-spread to
// 2^spread.
std::vector<std::byte> Gaussian(const StreamShape& shape, double spread,
                                uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<double> power(-spread, spread);
  std::vector<float> magnitudes(shape.head_dim);
  for (float& magnitude : magnitudes) {
    magnitude = static_cast<float>(std::exp2(power(rng)));
  }
  std::vector<float> values(shape.values());
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = normal(rng) * magnitudes[i % shape.head_dim];
  }
  std::vector<std::byte> bytes(values.size() * SizeOf(shape.dtype));
  StoreFloats(shape.dtype, values.data(), values.size(), bytes.data());
  return bytes;
}

std::vector<std::byte> AnyBits(size_t bytes, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<std::byte> any(bytes);
  for (std::byte& byte : any) byte = static_cast<std::byte>(rng());
  return any;
}

std::vector<std::byte> Encode(const StreamShape& shape,
                              const std::vector<std::byte>& elements) {
  const LosslessCodec codec;
  std::vector<std::byte> stream(codec.BytesMax(shape, Level::kLossless));
  StreamRoom room = {absl::MakeSpan(stream), 0};
  const Rows rows = {elements.data(), static_cast<int64_t>(shape.row_bytes())};
  EXPECT_TRUE(codec.Encode(shape, {&rows, 1}, {}, {&room, 1}).ok());
  EXPECT_TRUE(codec.MayHaveBytes(shape, Level::kLossless,
                                 static_cast<uint32_t>(room.bytes)));
  stream.resize(room.bytes);
  return stream;
}

struct Decoded {
  std::vector<std::byte> elements;
  absl::Status status;
};

Decoded Decode(const StreamShape& shape, const std::vector<std::byte>& stream) {
  Decoded decoded;
  decoded.elements.resize(shape.row_bytes() * shape.tokens);
  const MutableRows rows = {decoded.elements.data(),
                            static_cast<int64_t>(shape.row_bytes())};
  StreamReader reader(stream);
  decoded.status = LosslessCodec().Decode(shape, {&reader, 1}, {}, {&rows, 1});
  EXPECT_TRUE(!decoded.status.ok() || reader.remaining() == 0);
  return decoded;
}

// Returns the length of the stream.
size_t ExpectRoundTrip(const StreamShape& shape,
                       const std::vector<std::byte>& elements) {
  const std::vector<std::byte> stream = Encode(shape, elements);
  const Decoded decoded = Decode(shape, stream);
  EXPECT_TRUE(decoded.status.ok()) << decoded.status;
  EXPECT_EQ(decoded.elements, elements);
  return stream.size();
}

class LosslessCodecTest
    : public testing::TestWithParam<std::tuple<Dtype, int, int>> {};

TEST_P(LosslessCodecTest, ReturnsTheSameBits) {
  const auto [dtype, tokens, head_dim] = GetParam();
  const StreamShape shape = ShapeOf(dtype, tokens, head_dim);
  for (double spread : {0.0, 3.0}) {
    ExpectRoundTrip(shape, Gaussian(shape, spread, 1));
  }
  const std::vector<std::byte> zeros(shape.row_bytes() * tokens);
  ExpectRoundTrip(shape, zeros);
}

TEST_P(LosslessCodecTest, KeepsAnyBitsWithoutGrowing) {
  const auto [dtype, tokens, head_dim] = GetParam();
  const StreamShape shape = ShapeOf(dtype, tokens, head_dim);
  const size_t bytes = shape.row_bytes() * tokens;
  EXPECT_LE(ExpectRoundTrip(shape, AnyBits(bytes, 2)), bytes + 1);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, LosslessCodecTest,
    testing::Combine(testing::ValuesIn(kDtypes), testing::Values(1, 3, 256),
                     testing::Values(1, 2, 30, 32, 100, 128, 257)));

TEST(LosslessCodec, TakesTheLargestHead) {
  for (Dtype dtype : kDtypes) {
    const StreamShape shape = ShapeOf(dtype, 5, kHeadDimMax);
    ExpectRoundTrip(shape, Gaussian(shape, 2.0, 3));
  }
}

// Includes NaNs, infinities, denormals and negative zeros. Most values are
// normal, so that coding is shorter and the encoder chooses it.
TEST(LosslessCodec, CodesEveryPattern) {
  for (Dtype dtype : {Dtype::kBf16, Dtype::kFp16}) {
    const StreamShape shape = ShapeOf(dtype, 4096, 128);
    std::vector<std::byte> elements = Gaussian(shape, 0.0, 4);
    for (uint32_t pattern = 0; pattern < 65536; ++pattern) {
      std::memcpy(elements.data() + 2 * (8 * pattern + pattern % 8), &pattern,
                  2);
    }
    EXPECT_LT(ExpectRoundTrip(shape, elements), elements.size());
  }
}

TEST(LosslessCodec, CodesSpecialFloats) {
  const StreamShape shape = ShapeOf(Dtype::kFp32, 300, 64);
  std::vector<std::byte> elements = Gaussian(shape, 0.0, 5);
  const uint32_t special[] = {0x7fc00001, 0xff800001, 0x7f800000, 0xff800000,
                              0x80000000, 0x00000001, 0x807fffff, 0x7f7fffff};
  for (size_t i = 0; i < 400; ++i) {
    std::memcpy(elements.data() + 4 * 47 * i, &special[i % 8], 4);
  }
  EXPECT_LT(ExpectRoundTrip(shape, elements), elements.size());
}

TEST(LosslessCodec, IsAsShortAsPromised) {
  const auto ratio = [](Dtype dtype, double spread) {
    const StreamShape shape = ShapeOf(dtype, 256, 128);
    const auto elements = Gaussian(shape, spread, 6);
    return double(elements.size()) / double(Encode(shape, elements).size());
  };
  EXPECT_GT(ratio(Dtype::kBf16, 0.0), 1.49);
  EXPECT_GT(ratio(Dtype::kBf16, 5.0), 1.47);
  EXPECT_GT(ratio(Dtype::kFp16, 0.0), 1.14);
  EXPECT_GT(ratio(Dtype::kFp32, 0.0), 1.19);
}

TEST(LosslessCodec, TruncationsAreDataLoss) {
  const StreamShape shape = ShapeOf(Dtype::kBf16, 40, 32);
  const auto stream = Encode(shape, Gaussian(shape, 1.0, 7));
  for (size_t bytes = 1; bytes < stream.size(); ++bytes) {
    const std::vector<std::byte> part(stream.begin(), stream.begin() + bytes);
    EXPECT_TRUE(absl::IsDataLoss(Decode(shape, part).status)) << bytes;
  }
}

TEST(LosslessCodec, DamageIsDataLossOrOtherValues) {
  const StreamShape shape = ShapeOf(Dtype::kBf16, 40, 32);
  const auto elements = Gaussian(shape, 1.0, 8);
  const auto stream = Encode(shape, elements);
  for (size_t at = 0; at < stream.size(); ++at) {
    for (uint8_t flip : {0x01, 0x10, 0x80, 0xff}) {
      std::vector<std::byte> damaged = stream;
      damaged[at] ^= std::byte{flip};
      const Decoded decoded = Decode(shape, damaged);
      if (decoded.status.ok()) {
        EXPECT_NE(decoded.elements, elements) << at;
      } else {
        EXPECT_TRUE(absl::IsDataLoss(decoded.status)) << at;
      }
    }
  }
}

TEST(LosslessCodec, RandomBytesDoNoHarm) {
  std::mt19937 rng(9);
  for (int round = 0; round < 3000; ++round) {
    const StreamShape shape =
        ShapeOf(kDtypes[round % 3], 1 + rng() % 9, 1 + rng() % 40);
    std::vector<std::byte> stream = AnyBits(1 + rng() % 700, rng());
    stream[0] = static_cast<std::byte>(round % 4 == 0 ? 0 : 1);
    if (stream.size() > 11) {
      // Lengths that add up, so that the decoder looks at the parts.
      const uint16_t side = rng() % 60;
      const uint32_t coded = static_cast<uint32_t>(
          stream.size() - 11 - side - shape.values() * RestBytes(shape.dtype));
      std::memcpy(stream.data() + 1, &side, sizeof(side));
      const uint32_t second = round % 2 == 0 ? 0 : coded / 2;
      const uint32_t first = coded - second;
      std::memcpy(stream.data() + 3, &first, sizeof(first));
      std::memcpy(stream.data() + 7, &second, sizeof(second));
    }
    const absl::Status status = Decode(shape, stream).status;
    EXPECT_TRUE(status.ok() || absl::IsDataLoss(status)) << "seed 9 " << round;
  }
}

TEST(ExponentSplit, MergesTheSameOnEveryCpu) {
  std::mt19937 rng(10);
  for (Dtype dtype : kDtypes) {
    for (size_t count : {1, 7, 16, 31, 32, 64, 100, 128, 131}) {
      const auto row = AnyBits(count * SizeOf(dtype), rng());
      std::vector<uint8_t> symbols(count);
      std::vector<uint8_t> offsets(count);
      std::vector<std::byte> rest(count * RestBytes(dtype));
      SplitRow(dtype, row.data(), count, symbols.data(), rest.data());
      for (size_t i = 0; i < count; ++i) {
        offsets[i] = static_cast<uint8_t>(rng());
        symbols[i] -= offsets[i];
      }
      for (Isa isa : IsasUnderTest()) {
        std::vector<std::byte> merged(row.size());
        MergeRow(dtype, symbols.data(), offsets.data(), rest.data(), count,
                 merged.data(), isa);
        EXPECT_EQ(merged, row);
      }
    }
  }
}

}  // namespace
}  // namespace kdn::codec
