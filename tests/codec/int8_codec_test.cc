#include "codec/int8_codec.h"

#include <gtest/gtest.h>

#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>

#include "tests/codec/test_chunk.h"

namespace kdn::codec {
namespace {

// Half a step, in steps, with room for rounding: the fp32 product q * scale is
// off by at most 127 * 2^-24 of a step.
constexpr double kHalfStep = 0.5 + 127 * 0x1p-23;

// Rows of one head with magnitudes from tiny to huge, by channel and by token.
std::vector<float> WideRows(int tokens, int dim, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::uniform_int_distribution<int> exponent(-30, 30);
  std::vector<int> channel(dim);
  for (int& value : channel) value = exponent(rng);
  std::vector<float> rows(tokens * dim);
  for (int token = 0; token < tokens; ++token) {
    const int shift = exponent(rng);
    for (int i = 0; i < dim; ++i) {
      rows[token * dim + i] = std::ldexp(normal(rng), channel[i] + shift);
    }
  }
  return rows;
}

Rows DenseRows(const std::vector<float>& rows, int dim) {
  return {reinterpret_cast<const std::byte*>(rows.data()),
          static_cast<int64_t>(dim * sizeof(float))};
}

absl::Status DecodeFrom(const StreamShape& shape,
                        const std::vector<std::byte>& stream,
                        const MutableRows& rows) {
  StreamReader reader(stream);
  return Int8Codec().Decode(shape, {&reader, 1}, StreamContext(), {&rows, 1});
}

// Resizes `stream` to the stream's length and fills it.
absl::Status EncodeTo(const StreamShape& shape, const std::vector<float>& rows,
                      std::vector<std::byte>* stream) {
  stream->resize(Int8Codec().BytesMax(shape, Level::kInt8));
  const Rows source = DenseRows(rows, shape.head_dim);
  StreamRoom room{absl::MakeSpan(*stream)};
  const absl::Status status =
      Int8Codec().Encode(shape, {&source, 1}, StreamContext(), {&room, 1});
  EXPECT_EQ(room.bytes, stream->size());
  return status;
}

// Encodes and decodes fp32 rows without rotation; also returns the scales.
std::vector<float> ThereAndBack(const StreamShape& shape,
                                const std::vector<float>& rows,
                                std::vector<float>* scales) {
  std::vector<std::byte> stream;
  const absl::Status status = EncodeTo(shape, rows, &stream);
  EXPECT_TRUE(status.ok()) << status;
  scales->resize(shape.part == KvPart::kK ? shape.head_dim : shape.tokens);
  std::memcpy(scales->data(), stream.data(), scales->size() * sizeof(float));
  std::vector<float> back(rows.size());
  const MutableRows out{reinterpret_cast<std::byte*>(back.data()),
                        static_cast<int64_t>(shape.row_bytes())};
  EXPECT_TRUE(DecodeFrom(shape, stream, out).ok());
  return back;
}

class Int8CodecTest : public testing::TestWithParam<KvPart> {
 protected:
  StreamShape Shape(int tokens, int dim) const {
    return {GetParam(), 1, tokens, dim, Dtype::kFp32};
  }
};

TEST_P(Int8CodecTest, EveryValueReturnsWithinHalfAStep) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    const int tokens = 1 + static_cast<int>(seed * 7 % 40);
    const int dim = 2 + static_cast<int>(seed * 5 % 70);
    const auto rows = WideRows(tokens, dim, seed);
    std::vector<float> scales;
    const auto back = ThereAndBack(Shape(tokens, dim), rows, &scales);
    std::vector<double> largest(scales.size(), 0.0);
    for (int token = 0; token < tokens; ++token) {
      for (int i = 0; i < dim; ++i) {
        const size_t at = static_cast<size_t>(token) * dim + i;
        const int group = GetParam() == KvPart::kK ? i : token;
        largest[group] = std::max<double>(largest[group], std::fabs(rows[at]));
        EXPECT_LE(std::fabs(double{rows[at]} - back[at]),
                  kHalfStep * scales[group])
            << "seed " << seed << " token " << token << " dim " << i;
      }
    }
    // The largest magnitude has the code 127.
    for (size_t i = 0; i < scales.size(); ++i) {
      EXPECT_NEAR(scales[i] * 127.0, largest[i], largest[i] * 0x1p-22);
    }
  }
}

TEST_P(Int8CodecTest, ZerosSubnormalsAndTheLargestFloatsSurvive) {
  for (float value : {0.0f, -0.0f, FLT_TRUE_MIN, 1e-39f, FLT_MIN, FLT_MAX}) {
    std::vector<float> rows = {value, -value, 0.0f, value / 3};
    std::vector<float> scales;
    const auto back = ThereAndBack(Shape(2, 2), rows, &scales);
    for (size_t i = 0; i < rows.size(); ++i) {
      const float scale = scales[GetParam() == KvPart::kK ? i % 2 : i / 2];
      EXPECT_GE(scale, FLT_MIN);
      EXPECT_LE(std::fabs(double{rows[i]} - back[i]), kHalfStep * scale)
          << value << " at " << i;
    }
  }
}

TEST_P(Int8CodecTest, RefusesValuesThatAreNotFinite) {
  const StreamShape shape = Shape(3, 4);
  for (float bad : {std::numeric_limits<float>::infinity(),
                    -std::numeric_limits<float>::infinity(),
                    std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> rows(12, 1.0f);
    rows[9] = bad;
    std::vector<std::byte> stream;
    EXPECT_EQ(EncodeTo(shape, rows, &stream).code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST_P(Int8CodecTest, ScalesThatNoEncoderWritesAreDataLoss) {
  const Int8Codec codec;
  const StreamShape shape = Shape(3, 4);
  std::vector<float> out(12);
  const MutableRows rows{reinterpret_cast<std::byte*>(out.data()), 16};
  for (float bad : {0.0f, -1.0f, std::numeric_limits<float>::infinity(),
                    std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> scales(GetParam() == KvPart::kK ? 4 : 3, 1.0f);
    std::vector<std::byte> stream(codec.BytesMax(shape, Level::kInt8));
    std::memcpy(stream.data(), scales.data(), scales.size() * sizeof(float));
    EXPECT_TRUE(DecodeFrom(shape, stream, rows).ok());
    std::memcpy(stream.data() + 8, &bad, sizeof(bad));
    EXPECT_EQ(DecodeFrom(shape, stream, rows).code(),
              absl::StatusCode::kDataLoss);
  }
}

TEST_P(Int8CodecTest, OnlyTheExactLengthIsPossible) {
  const Int8Codec codec;
  const StreamShape shape = Shape(3, 4);
  const auto bytes = static_cast<uint32_t>(codec.BytesMax(shape, Level::kInt8));
  EXPECT_EQ(bytes, 12u + 4u * (GetParam() == KvPart::kK ? 4 : 3));
  EXPECT_TRUE(codec.MayHaveBytes(shape, Level::kInt8, bytes));
  EXPECT_FALSE(codec.MayHaveBytes(shape, Level::kInt8, bytes - 1));
  EXPECT_FALSE(codec.MayHaveBytes(shape, Level::kInt8, bytes + 1));
  EXPECT_FALSE(codec.MayHaveBytes(shape, Level::kInt8, 0));
}

INSTANTIATE_TEST_SUITE_P(Parts, Int8CodecTest,
                         testing::Values(KvPart::kK, KvPart::kV));

struct ObjectCase {
  Dtype dtype;
  RopePairing pairing;
  int rotary_dim;
  double attention_factor;
};
class Int8ObjectTest : public testing::TestWithParam<ObjectCase> {
 protected:
  static ChunkOptions Options() {
    ChunkOptions options;
    options.shape = {.layers = 1,
                     .kv_heads = 2,
                     .tokens = 33,
                     .head_dim = 24,
                     .dtype = GetParam().dtype};
    options.pairing = GetParam().pairing;
    options.rotary_dim = GetParam().rotary_dim;
    options.attention_factor = GetParam().attention_factor;
    options.levels = LevelSet::Of(Level::kInt8);
    return options;
  }
  // K of one token before RoPE.
  static std::vector<float> BeforeRope(const RopeTable& table,
                                       std::vector<float> row,
                                       int32_t position) {
    std::vector<float> cos(table.pairs());
    std::vector<float> sin(table.pairs());
    table.CosSin(position, cos.data(), sin.data());
    table.Unrotate(cos.data(), sin.data(), row.data());
    return row;
  }
  static double DtypeUlp() {
    switch (GetParam().dtype) {
      case Dtype::kBf16:
        return 0x1p-8;
      case Dtype::kFp16:
        return 0x1p-11;
      case Dtype::kFp32:
        break;
    }
    return 0x1p-21;
  }
  static double Norm(const std::vector<float>& row) {
    double sum = 0.0;
    for (float value : row) sum += double{value} * value;
    return std::sqrt(sum);
  }
};

// Decodes K at some positions and undoes RoPE there: each value is within half
// a step of what was encoded, apart from the rounding to the dtype.
TEST_P(Int8ObjectTest, KIsWithinHalfAStepBeforeRopeAtAnyPositions) {
  const ChunkOptions options = Options();
  const ObjectHeader header = HeaderOf(options);
  std::mt19937 rng(21);
  KvBuffer kv(options.shape, Layout::kTokenMajor);
  kv.FillRandom(&rng);
  const auto object = Encode(header, kv.view());
  const auto index = ObjectIndex::Parse(object, object.size());
  ASSERT_TRUE(index.ok());
  const RopeTable table(header.rope);
  for (int32_t shift : {0, 1, 30000}) {
    std::vector<int32_t> wanted = header.positions;
    for (int32_t& position : wanted) position += shift;
    KvBuffer decoded(options.shape, Layout::kHeadMajor);
    ASSERT_TRUE(DecodeAll(object, Level::kInt8, wanted, decoded.view()).ok());
    for (int head = 0; head < options.shape.kv_heads; ++head) {
      std::vector<float> scales(options.shape.head_dim);
      const StreamEntry& entry =
          index->Entry({Level::kInt8, 0, KvPart::kK, head});
      std::memcpy(scales.data(), object.data() + entry.offset,
                  scales.size() * sizeof(float));
      for (int token = 0; token < options.shape.tokens; ++token) {
        const auto before = BeforeRope(
            table, kv.Row(0, KvPart::kK, head, token), header.positions[token]);
        const auto after = BeforeRope(
            table, decoded.Row(0, KvPart::kK, head, token), wanted[token]);
        for (int i = 0; i < options.shape.head_dim; ++i) {
          EXPECT_LE(std::fabs(before[i] - after[i]),
                    kHalfStep * scales[i] + DtypeUlp() * Norm(before))
              << "shift " << shift << " token " << token << " dim " << i;
        }
      }
    }
  }
}

TEST_P(Int8ObjectTest, VIsWithinHalfAStepOfItsToken) {
  const ChunkOptions options = Options();
  const ObjectHeader header = HeaderOf(options);
  std::mt19937 rng(22);
  KvBuffer kv(options.shape, Layout::kTokenMajor);
  kv.FillRandom(&rng);
  KvBuffer decoded(options.shape, Layout::kPadded);
  ASSERT_TRUE(DecodeAll(Encode(header, kv.view()), Level::kInt8,
                        header.positions, decoded.view())
                  .ok());
  for (int token = 0; token < options.shape.tokens; ++token) {
    const auto before = kv.Row(0, KvPart::kV, 1, token);
    const auto after = decoded.Row(0, KvPart::kV, 1, token);
    double largest = 0.0;
    for (float value : before) {
      largest = std::max<double>(largest, std::fabs(value));
    }
    for (int i = 0; i < options.shape.head_dim; ++i) {
      EXPECT_LE(
          std::fabs(before[i] - after[i]),
          kHalfStep * largest / 127.0 + DtypeUlp() * std::fabs(before[i]));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, Int8ObjectTest,
    testing::Values(ObjectCase{Dtype::kBf16, RopePairing::kNeoX, 24, 1.0},
                    ObjectCase{Dtype::kFp16, RopePairing::kNeoX, 24, 1.0},
                    ObjectCase{Dtype::kFp32, RopePairing::kNeoX, 24, 1.3},
                    ObjectCase{Dtype::kFp32, RopePairing::kGptJ, 10, 1.3},
                    ObjectCase{Dtype::kBf16, RopePairing::kGptJ, 16, 0.8},
                    ObjectCase{Dtype::kFp16, RopePairing::kNeoX, 0, 1.0}));

TEST(Int8Object, IsAboutHalfOfBf16) {
  ChunkOptions options;
  options.shape = {.layers = 1,
                   .kv_heads = 1,
                   .tokens = 256,
                   .head_dim = 128,
                   .dtype = Dtype::kBf16};
  options.rotary_dim = 128;
  options.levels = LevelSet::Of(Level::kInt8);
  const auto object = RandomObject(options, 1);
  EXPECT_LT(object.size(), options.shape.bytes() * 0.55);
}

}  // namespace
}  // namespace kdn::codec
