#include "codec/decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "codec/format/stream_layout.h"
#include "tests/codec/test_chunk.h"

namespace kdn::codec {
namespace {

using testing::HasSubstr;

using LosslessCase = std::tuple<Dtype, Layout, Layout>;
class LosslessTest : public testing::TestWithParam<LosslessCase> {};

TEST_P(LosslessTest, ReturnsTheSameBitsAtTheSamePositions) {
  const auto [dtype, from, to] = GetParam();
  ChunkOptions options;
  options.shape.dtype = dtype;
  // Rows of whole cache lines and streams of several blocks, or neither.
  const bool lines = to != Layout::kPadded || dtype == Dtype::kFp16;
  options.shape.head_dim = lines ? 32 : 9;
  options.shape.tokens = lines ? 70 : 5;
  const EncodedChunk chunk(options, from);
  KvBuffer decoded(options.shape, to);
  const KvBuffer before = decoded;
  ASSERT_TRUE(DecodeAll(chunk.object, Level::kLossless, chunk.header.positions,
                        decoded.view())
                  .ok());
  EXPECT_TRUE(SameElements(chunk.kv.view(), decoded.view()));
  // The bytes between the rows do not change.
  KvBuffer expected = before;
  for (int layer = 0; layer < options.shape.layers; ++layer) {
    for (KvPart part : {KvPart::kK, KvPart::kV}) {
      for (int head = 0; head < options.shape.kv_heads; ++head) {
        for (int token = 0; token < options.shape.tokens; ++token) {
          std::memcpy(expected.view().At(layer, part, head, token),
                      chunk.kv.view().At(layer, part, head, token),
                      options.shape.head_bytes());
        }
      }
    }
  }
  EXPECT_EQ(decoded.bytes(), expected.bytes());
}

INSTANTIATE_TEST_SUITE_P(
    AllDtypesAndLayouts, LosslessTest,
    testing::Combine(testing::Values(Dtype::kBf16, Dtype::kFp16, Dtype::kFp32),
                     testing::Values(Layout::kTokenMajor, Layout::kHeadMajor,
                                     Layout::kPadded),
                     testing::Values(Layout::kTokenMajor, Layout::kHeadMajor,
                                     Layout::kPadded)));

struct MoveCase {
  Dtype dtype;
  RopePairing pairing;
  int rotary_dim;
  double attention_factor;
};
class MoveTest : public testing::TestWithParam<MoveCase> {};

// Compares K at other positions with a rotation in double by the difference of
// the engine's fp32 angles. The only error left is the dtype's rounding.
TEST_P(MoveTest, LosslessTurnsKByTheDifferenceAndCopiesTheRest) {
  const MoveCase& param = GetParam();
  ChunkOptions options;
  options.shape.dtype = param.dtype;
  options.pairing = param.pairing;
  options.rotary_dim = param.rotary_dim;
  options.attention_factor = param.attention_factor;
  const EncodedChunk chunk(options, Layout::kTokenMajor);
  const std::vector<int32_t> wanted = Shifted(chunk.header.positions, 40000);
  KvBuffer decoded(options.shape, Layout::kPadded);
  ASSERT_TRUE(
      DecodeAll(chunk.object, Level::kLossless, wanted, decoded.view()).ok());
  const RopeTable table(chunk.header.rope);
  const double ulp = param.dtype == Dtype::kBf16   ? 0x1p-8
                     : param.dtype == Dtype::kFp16 ? 0x1p-11
                                                   : 0x1p-22;
  for (int token = 0; token < options.shape.tokens; ++token) {
    const auto before = chunk.kv.Row(1, KvPart::kK, 2, token);
    const auto after = decoded.Row(1, KvPart::kK, 2, token);
    for (int pair = 0; pair < table.pairs(); ++pair) {
      const bool neox = param.pairing == RopePairing::kNeoX;
      const int i = neox ? pair : 2 * pair;
      const int j = neox ? pair + table.pairs() : 2 * pair + 1;
      const float f = table.inv_freq()[pair];
      const double angle =
          static_cast<double>(static_cast<float>(wanted[token]) * f) -
          static_cast<float>(chunk.header.positions[token]) * f;
      const double x =
          before[i] * std::cos(angle) - before[j] * std::sin(angle);
      const double y =
          before[j] * std::cos(angle) + before[i] * std::sin(angle);
      const double noise = 0x1p-21 * std::hypot(x, y);
      EXPECT_NEAR(after[i], x, ulp * std::fabs(x) + noise) << token << " " << i;
      EXPECT_NEAR(after[j], y, ulp * std::fabs(y) + noise) << token << " " << j;
    }
    for (int i = param.rotary_dim; i < options.shape.head_dim; ++i) {
      EXPECT_EQ(after[i], before[i]);
    }
    EXPECT_EQ(decoded.Row(1, KvPart::kV, 2, token),
              chunk.kv.Row(1, KvPart::kV, 2, token));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, MoveTest,
    testing::Values(MoveCase{Dtype::kBf16, RopePairing::kNeoX, 8, 1.0},
                    MoveCase{Dtype::kFp16, RopePairing::kNeoX, 8, 1.0},
                    MoveCase{Dtype::kFp32, RopePairing::kNeoX, 8, 1.3},
                    MoveCase{Dtype::kFp32, RopePairing::kGptJ, 8, 1.3},
                    MoveCase{Dtype::kBf16, RopePairing::kGptJ, 4, 1.0},
                    MoveCase{Dtype::kFp16, RopePairing::kGptJ, 2, 0.9},
                    MoveCase{Dtype::kBf16, RopePairing::kNeoX, 6, 1.3},
                    MoveCase{Dtype::kBf16, RopePairing::kNeoX, 0, 1.0}));

TEST(ObjectDecoder, TokensThatStayKeepTheirBitsWhileOthersMove) {
  const ChunkOptions options;
  const EncodedChunk chunk(options, Layout::kTokenMajor);
  std::vector<int32_t> wanted = chunk.header.positions;
  wanted[2] += 9;
  KvBuffer decoded(options.shape, Layout::kTokenMajor);
  ASSERT_TRUE(
      DecodeAll(chunk.object, Level::kLossless, wanted, decoded.view()).ok());
  for (int token = 0; token < options.shape.tokens; ++token) {
    EXPECT_EQ(decoded.Row(0, KvPart::kK, 1, token) ==
                  chunk.kv.Row(0, KvPart::kK, 1, token),
              token != 2);
  }
}

TEST(ObjectDecoder, RefusesPositionsThatDoNotFit) {
  const EncodedChunk chunk(ChunkOptions{}, Layout::kTokenMajor);
  const auto calibration = TestCalibrationOf(chunk.header);
  for (const std::vector<int32_t>& positions :
       {std::vector<int32_t>{}, std::vector<int32_t>{1, 2, 3, 4},
        std::vector<int32_t>{0, 1, 2, 3, -4}}) {
    EXPECT_EQ(ObjectDecoder::Create(&*chunk.index, calibration, positions)
                  .status()
                  .code(),
              absl::StatusCode::kInvalidArgument);
  }
  const auto negative = ObjectDecoder::Create(
      &*chunk.index, calibration, std::vector<int32_t>{0, 1, -2, 3, 4});
  EXPECT_THAT(std::string(negative.status().message()),
              HasSubstr("token 2 is -2"));
}

TEST(ObjectDecoder, RefusesCallsAndDestinationsThatDoNotFit) {
  ChunkOptions options;
  options.levels = LevelSet::Of(Level::kLossless);
  const EncodedChunk chunk(options, Layout::kTokenMajor);
  const ObjectDecoder decoder = chunk.Decoder(chunk.header.positions);
  KvBuffer decoded(options.shape, Layout::kTokenMajor);
  const auto decode = [&](Level level, int layer, int begin, int end,
                          const KvDestination& to) {
    const auto by_ranges =
        decoder.DecodeLayer(level, layer, begin, end, {}, to).code();
    const auto picked =
        decoder.DecodeLayerOf(chunk.object, level, layer, begin, end, to)
            .code();
    EXPECT_EQ(by_ranges, picked);
    return picked;
  };
  const auto invalid = absl::StatusCode::kInvalidArgument;
  const MutableKvView layer = decoded.view().Layer(0);
  EXPECT_EQ(decode(Level::kInt8, 0, 0, 3, layer), invalid);
  EXPECT_EQ(decode(Level::kBase, 0, 0, 3, layer), invalid);
  EXPECT_EQ(decode(static_cast<Level>(7), 0, 0, 3, layer), invalid);
  EXPECT_EQ(decode(Level::kLossless, -1, 0, 3, layer), invalid);
  EXPECT_EQ(decode(Level::kLossless, 2, 0, 3, layer), invalid);
  EXPECT_EQ(decode(Level::kLossless, 0, -1, 2, layer), invalid);
  EXPECT_EQ(decode(Level::kLossless, 0, 1, 4, layer), invalid);
  EXPECT_EQ(decode(Level::kLossless, 0, 2, 2, layer), invalid);
  EXPECT_EQ(decode(Level::kLossless, 0, 0, 2, layer), invalid);
  EXPECT_EQ(decode(Level::kLossless, 0, 0, 3, decoded.view()), invalid);
  EXPECT_EQ(decode(Level::kLossless, 0, 0, 3, layer.Tokens(0, 4)), invalid);
  KvShape fp16 = layer.shape();
  fp16.dtype = Dtype::kFp16;
  EXPECT_EQ(decode(Level::kLossless, 0, 0, 3,
                   MutableKvView(layer.base(), fp16, layer.strides())),
            invalid);
}

TEST(ObjectDecoder, LayersMayBeDecodedByManyThreadsAtOnce) {
  ChunkOptions options;
  options.shape = {.layers = 8,
                   .kv_heads = 2,
                   .tokens = 64,
                   .head_dim = 32,
                   .dtype = Dtype::kBf16};
  options.rotary_dim = 32;
  const EncodedChunk chunk(options, Layout::kTokenMajor);
  const auto wanted = Shifted(chunk.header.positions, 500);
  for (Level level : LevelsOf(kApartLevels)) {
    KvBuffer alone(options.shape, Layout::kTokenMajor);
    ASSERT_TRUE(DecodeAll(chunk.object, level, wanted, alone.view()).ok());
    KvBuffer together(options.shape, Layout::kTokenMajor);
    const ObjectDecoder decoder = chunk.Decoder(wanted);
    std::vector<std::thread> threads;
    for (int layer = 0; layer < options.shape.layers; ++layer) {
      threads.emplace_back([&, layer] {
        EXPECT_TRUE(decoder
                        .DecodeLayerOf(chunk.object, level, layer, 0, 2,
                                       together.view().Layer(layer))
                        .ok());
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_TRUE(SameElements(alone.view(), together.view()));
  }
}

}  // namespace
}  // namespace kdn::codec
