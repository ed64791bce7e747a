// Edge cases of transform-coded streams: few tokens, tokens out of range,
// values that are not finite, truncated streams.

#include <gtest/gtest.h>

#include <cfloat>
#include <limits>
#include <random>

#include "codec/transform/transform_codec.h"
#include "codec/transform/transform_frame.h"
#include "tests/codec/test_calibration.h"

namespace kdn::codec {
namespace {

constexpr Level kSteps3[] = {Level::kBase, Level::kBase1, Level::kBase2};

// One stream of V, one head of fp32, without a calibration.
class OneStreamTest : public testing::Test {
 protected:
  OneStreamTest()
      : calibration_(Calibration::Uncalibrated({1, 1, kDim})),
        context_{.transform = &calibration_->Of(0, KvPart::kV, 0),
                 .tables = calibration_->tables()} {}

  static constexpr int kDim = 24;
  static constexpr int32_t kPosition = 100;

  StreamShape Shape() const {
    return {KvPart::kK, 1, static_cast<int>(rows_.size()) / kDim, kDim,
            Dtype::kFp32};
  }
  void FillNormal(int tokens) {
    std::mt19937 rng(3);
    std::normal_distribution<float> normal;
    rows_.resize(static_cast<size_t>(tokens) * kDim);
    for (float& value : rows_) value = normal(rng);
  }
  absl::Status Encode() {
    const StreamShape shape = Shape();
    const std::vector<int32_t> positions(shape.tokens, kPosition);
    StreamContext context = context_;
    context.positions = positions;
    const Rows rows{reinterpret_cast<const std::byte*>(rows_.data()),
                    static_cast<int64_t>(shape.row_bytes())};
    std::vector<StreamRoom> rooms;
    streams_.clear();
    for (Level level : kSteps3) {
      streams_.emplace_back(codec_.BytesMax(shape, level));
      rooms.push_back({absl::MakeSpan(streams_.back())});
    }
    const absl::Status status =
        codec_.Encode(shape, {&rows, 1}, context, absl::MakeSpan(rooms));
    for (size_t i = 0; i < rooms.size(); ++i)
      streams_[i].resize(rooms[i].bytes);
    return status;
  }
  absl::Status Decode(const std::vector<std::vector<std::byte>>& streams,
                      std::vector<float>* out) {
    const StreamShape shape = Shape();
    out->assign(rows_.size(), 0.0f);
    const MutableRows rows{reinterpret_cast<std::byte*>(out->data()),
                           static_cast<int64_t>(shape.row_bytes())};
    std::vector<StreamReader> readers;
    for (const auto& stream : streams) readers.emplace_back(stream);
    return codec_.Decode(shape, absl::MakeSpan(readers), context_, {&rows, 1});
  }

  const TransformCodec codec_;
  std::shared_ptr<const Calibration> calibration_;
  StreamContext context_;
  std::vector<float> rows_;
  std::vector<std::vector<std::byte>> streams_;
};

TEST_F(OneStreamTest, FewTokensAreKeptAsRows) {
  FillNormal(2);
  ASSERT_TRUE(Encode().ok());
  EXPECT_EQ(streams_[0].size(), 1 + 2 * rows_.size());
  EXPECT_EQ(streams_[1].size(), 1u);
  EXPECT_EQ(streams_[2].size(), 1u);
  std::vector<float> decoded;
  ASSERT_TRUE(Decode(streams_, &decoded).ok());
  for (size_t i = 0; i < rows_.size(); ++i) {
    EXPECT_EQ(decoded[i], Bf16ToFloat(FloatToBf16(rows_[i])));
  }
}

// The quantiser does not reach the values of this token, so the token is kept
// raw: every level gives its values, rounded to bf16.
TEST_F(OneStreamTest, ATokenOutOfRangeIsKeptRaw) {
  FillNormal(256);
  for (int i = 0; i < kDim; ++i) rows_[17 * kDim + i] *= 1e6f;
  ASSERT_TRUE(Encode().ok());
  std::vector<float> decoded;
  for (size_t levels : {1, 2, 3}) {
    ASSERT_TRUE(
        Decode({streams_.begin(), streams_.begin() + levels}, &decoded).ok());
    for (int i = 17 * kDim; i < 18 * kDim; ++i) {
      EXPECT_EQ(decoded[i], Bf16ToFloat(FloatToBf16(rows_[i])));
    }
  }
}

TEST_F(OneStreamTest, EveryTruncationIsDataLoss) {
  FillNormal(64);
  ASSERT_TRUE(Encode().ok());
  std::vector<float> decoded;
  for (size_t levels : {1, 2, 3}) {
    const std::vector<std::vector<std::byte>> whole(streams_.begin(),
                                                    streams_.begin() + levels);
    ASSERT_TRUE(Decode(whole, &decoded).ok());
    ASSERT_GT(whole.back().size(), 128u) << "symbols are coded";
    for (size_t bytes = 1; bytes < whole.back().size(); ++bytes) {
      auto part = whole;
      part.back().resize(bytes);
      part.back().shrink_to_fit();
      EXPECT_EQ(Decode(part, &decoded).code(), absl::StatusCode::kDataLoss);
    }
    auto longer = whole;
    longer.back().push_back(std::byte{0});
    EXPECT_EQ(Decode(longer, &decoded).code(), absl::StatusCode::kDataLoss);
  }
}

// Loops skip bands that no level codes, so the values of these bands must be
// zero.
TEST_F(OneStreamTest, PatchesInBandsThatALevelDoesNotCodeAreDataLoss) {
  calibration_ = MadeCalibration({1, 1, kDim});
  context_.transform = &calibration_->Of(0, KvPart::kK, 0);
  context_.tables = calibration_->tables();
  ASSERT_EQ(context_.transform->classes[0].bands[1][1].mode, BandMode::kAbsent);
  FillNormal(64);
  ASSERT_TRUE(Encode().ok());
  StreamFrame frame = FrameOf(Shape(), *context_.transform);
  frame.step = 1;
  for (int component : {3, 20}) {
    auto parts = ReadParts(frame, streams_[1]);
    ASSERT_TRUE(parts.ok()) << parts.status();
    parts->patches.push_back({5, static_cast<uint8_t>(component), 1});
    std::vector<std::byte> forged(PartsBytes(frame, 0, parts->patches.size()));
    WriteParts(frame, *parts, absl::MakeSpan(forged));
    forged.insert(forged.end(), parts->symbols.begin(), parts->symbols.end());
    std::vector<float> decoded;
    EXPECT_EQ(
        Decode({streams_[0], forged}, &decoded).code(),
        component == 3 ? absl::StatusCode::kOk : absl::StatusCode::kDataLoss);
  }
}

TEST_F(OneStreamTest, RefusesValuesThatAreNotFinite) {
  for (float bad : {std::numeric_limits<float>::infinity(),
                    -std::numeric_limits<float>::infinity(),
                    std::numeric_limits<float>::quiet_NaN()}) {
    FillNormal(9);
    rows_[100] = bad;
    EXPECT_EQ(Encode().code(), absl::StatusCode::kInvalidArgument);
  }
}

// Undoing RoPE on a pair of the largest floats gives a value that no float
// holds.
TEST_F(OneStreamTest, RefusesValuesThatAreNotFiniteBeforeRope) {
  const RopeTable rope({.rotary_dim = kDim});
  const RowRotation undo =
      RowRotation::Undo(rope, std::vector<int32_t>{0, 1, 2, 3});
  FillNormal(4);
  context_.rotation = &undo;
  ASSERT_TRUE(Encode().ok());
  rows_[2 * kDim] = rows_[2 * kDim + kDim / 2] = FLT_MAX;
  EXPECT_EQ(Encode().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(OneStreamTest, LengthsAreBounded) {
  FillNormal(64);
  const StreamShape shape = Shape();
  for (Level level : kSteps3) {
    const auto most = static_cast<uint32_t>(codec_.BytesMax(shape, level));
    EXPECT_FALSE(codec_.MayHaveBytes(shape, level, 0));
    EXPECT_TRUE(codec_.MayHaveBytes(shape, level, 1));
    EXPECT_TRUE(codec_.MayHaveBytes(shape, level, most));
    EXPECT_FALSE(codec_.MayHaveBytes(shape, level, most + 1));
  }
}

}  // namespace
}  // namespace kdn::codec
