#include "codec/transform/transform_codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "codec/format/stream_layout.h"
#include "tests/codec/test_calibration.h"
#include "tests/codec/test_chunk.h"

namespace kdn::codec {
namespace {

constexpr Level kSteps3[] = {Level::kBase, Level::kBase1, Level::kBase2};

// Shapes of every kind; the other options of a chunk follow from its index.
std::vector<ChunkOptions> Shapes() {
  std::vector<ChunkOptions> shapes;
  for (int heads : {1, 2, 3}) {
    for (int dim : {8, 32, 80, 128, 256}) {
      for (int tokens : {1, 5, 8, 250, 256}) {
        const size_t number = shapes.size();
        ChunkOptions options;
        options.shape = {.layers = 1,
                         .kv_heads = heads,
                         .tokens = tokens,
                         .head_dim = dim,
                         .dtype = static_cast<Dtype>(number % 3)};
        options.pairing =
            number % 2 == 0 ? RopePairing::kNeoX : RopePairing::kGptJ;
        options.rotary_dim = number % 4 == 1 ? dim / 4 * 2 : dim;
        options.attention_factor = number % 5 == 2 ? 1.2 : 1.0;
        options.levels = LevelSet::Of(Level::kBase2).WithRefined();
        shapes.push_back(options);
      }
    }
  }
  return shapes;
}

std::string Describe(const ChunkOptions& options) {
  const KvShape& shape = options.shape;
  return testing::PrintToString(
      std::vector<int>{shape.kv_heads, shape.head_dim, shape.tokens,
                       static_cast<int>(shape.dtype), options.rotary_dim});
}

double RmsDifference(const KvBuffer& a, const KvBuffer& b) {
  double squares = 0.0;
  for (KvPart part : {KvPart::kK, KvPart::kV}) {
    for (int head = 0; head < a.shape().kv_heads; ++head) {
      for (int token = 0; token < a.shape().tokens; ++token) {
        const auto x = a.Row(0, part, head, token);
        const auto y = b.Row(0, part, head, token);
        for (size_t i = 0; i < x.size(); ++i) {
          squares += (double{x[i]} - y[i]) * (double{x[i]} - y[i]);
        }
      }
    }
  }
  return std::sqrt(squares / (2.0 * a.shape().kv_heads * a.shape().tokens *
                              a.shape().head_dim));
}

// The parameter is whether a calibration of the model codes the chunk.
class TransformCodecTest : public testing::TestWithParam<bool> {
 protected:
  static std::shared_ptr<const Calibration> CalibrationFor(
      const ObjectHeader& header) {
    return GetParam() ? MadeCalibration(GeometryOf(header.shape))
                      : TestCalibrationOf(header);
  }
};

TEST_P(TransformCodecTest, EachLevelDecodesCloserThanTheOneBefore) {
  for (const ChunkOptions& options : Shapes()) {
    SCOPED_TRACE(Describe(options));
    const ObjectHeader header = HeaderOf(options);
    const auto calibration = CalibrationFor(header);
    std::mt19937 rng(options.shape.tokens);
    KvBuffer kv(options.shape, Layout::kTokenMajor);
    kv.FillRandom(&rng);
    const auto object = EncodeWith(calibration, header, kv.view());
    double before = std::numeric_limits<double>::infinity();
    // Without a calibration, cells are 0.9, 0.3 and 0.1 wide, and errors are
    // uniform in a cell. The test calibration has bands that a level does not
    // code, so its errors are larger.
    const double bounds[] = {GetParam() ? 1.1 : 0.35, GetParam() ? 0.7 : 0.13,
                             GetParam() ? 0.4 : 0.045};
    for (int step = 0; step < kLadderSteps; ++step) {
      KvBuffer decoded(options.shape, Layout::kPadded);
      ASSERT_TRUE(DecodeAllWith(calibration, object, kSteps3[step],
                                header.positions, decoded.view())
                      .ok());
      const double error = RmsDifference(kv, decoded);
      // With few tokens a level may be of the form kNothing.
      EXPECT_LE(error, before) << "step " << step;
      if (options.shape.tokens > 10) {
        EXPECT_LT(error, (GetParam() ? 0.95 : 0.8) * before) << "step " << step;
      }
      if (options.shape.tokens > 10 || !GetParam()) {
        EXPECT_LT(error, bounds[step]) << "step " << step;
      }
      before = error;
    }
  }
}

// K at any positions is RoPE applied to the K that was decoded before RoPE.
TEST_P(TransformCodecTest, KAtAnyPositionsIsTheSameBeforeRope) {
  for (ChunkOptions options : Shapes()) {
    if (options.shape.tokens == 256) continue;
    options.shape.dtype = Dtype::kFp32;
    SCOPED_TRACE(Describe(options));
    const ObjectHeader header = HeaderOf(options);
    const auto calibration = CalibrationFor(header);
    std::mt19937 rng(7);
    KvBuffer kv(options.shape, Layout::kTokenMajor);
    kv.FillRandom(&rng);
    const auto object = EncodeWith(calibration, header, kv.view());
    const RopeTable table(header.rope);
    std::vector<float> cos(table.pairs());
    std::vector<float> sin(table.pairs());
    const auto before_rope = [&](std::vector<float> row, int32_t position) {
      table.CosSin(position, cos.data(), sin.data());
      table.Unrotate(cos.data(), sin.data(), row.data());
      return row;
    };
    for (Level level : kSteps3) {
      KvBuffer here(options.shape, Layout::kHeadMajor);
      KvBuffer there(options.shape, Layout::kTokenMajor);
      const auto wanted = Shifted(header.positions, 30000);
      ASSERT_TRUE(DecodeAllWith(calibration, object, level, header.positions,
                                here.view())
                      .ok());
      ASSERT_TRUE(
          DecodeAllWith(calibration, object, level, wanted, there.view()).ok());
      for (int head = 0; head < options.shape.kv_heads; ++head) {
        for (int token = 0; token < options.shape.tokens; token += 3) {
          const auto a = before_rope(here.Row(0, KvPart::kK, head, token),
                                     header.positions[token]);
          const auto b =
              before_rope(there.Row(0, KvPart::kK, head, token), wanted[token]);
          for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-5);
          EXPECT_EQ(here.Row(0, KvPart::kV, head, token),
                    there.Row(0, KvPart::kV, head, token));
        }
      }
    }
  }
}

TEST_P(TransformCodecTest, AnySliceOfHeadsEqualsTheWhole) {
  for (int dim : {8, 32, 80}) {
    ChunkOptions options;
    options.shape = {.layers = 1,
                     .kv_heads = 6,
                     .tokens = 33,
                     .head_dim = dim,
                     .dtype = Dtype::kBf16};
    options.levels = LevelSet::Of(Level::kBase2).WithRefined();
    const ObjectHeader header = HeaderOf(options);
    const auto calibration = CalibrationFor(header);
    std::mt19937 rng(9);
    KvBuffer kv(options.shape, Layout::kTokenMajor);
    kv.FillRandom(&rng);
    const auto object = EncodeWith(calibration, header, kv.view());
    const auto index = ObjectIndex::Parse(object, object.size());
    const auto wanted = Shifted(header.positions, 11);
    const auto decoder = ObjectDecoder::Create(&*index, calibration, wanted);
    for (Level level : kSteps3) {
      KvBuffer whole(options.shape, Layout::kTokenMajor);
      ASSERT_TRUE(
          DecodeAllWith(calibration, object, level, wanted, whole.view()).ok());
      for (int begin = 0; begin < 6; ++begin) {
        for (int end = begin + 1; end <= 6; ++end) {
          KvShape shape = options.shape;
          shape.kv_heads = end - begin;
          KvBuffer slice(shape, Layout::kPadded);
          ASSERT_TRUE(
              decoder->DecodeLayerOf(object, level, 0, begin, end, slice.view())
                  .ok());
          EXPECT_TRUE(
              SameElements(KvView(whole.view().At(0, KvPart::kK, begin, 0),
                                  shape, whole.view().strides()),
                           slice.view()));
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Calibrated, TransformCodecTest, testing::Bool());

}  // namespace
}  // namespace kdn::codec
