#include "codec/transform/transform_stream.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

namespace kdn::codec {
namespace {

std::vector<std::byte> Bytes(size_t count, uint8_t first) {
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i < count; ++i) {
    bytes[i] = static_cast<std::byte>(first + 7 * i);
  }
  return bytes;
}

// Parts with memory of their own, for every kind of frame.
class TransformStreamTest
    : public testing::TestWithParam<std::tuple<bool, int>> {
 protected:
  TransformStreamTest() {
    frame_ = {.tokens = 9,
              .dim = 3,
              .components = 16,
              .columns = 16,
              .own_statistics = std::get<0>(GetParam()),
              .step = std::get<1>(GetParam())};
    mean_ = Bytes(frame_.row_bytes(), 1);
    rows_ = Bytes(2 * frame_.row_bytes(), 100);
    symbols_ = Bytes(40, 200);
    if (frame_.step == 0) {
      if (frame_.own_statistics) {
        parts_.gain = 0.375f;
        parts_.mean = mean_;
      }
      parts_.raw_tokens = {2, 8};
      parts_.raw_rows = rows_;
    }
    parts_.patches = {{0, 15, -128}, {8, 0, 127}, {8, 0, 1}};
  }

  std::vector<std::byte> Write(const StreamParts& parts) const {
    std::vector<std::byte> stream(
        PartsBytes(frame_, parts.raw_tokens.size(), parts.patches.size()));
    EXPECT_EQ(WriteParts(frame_, parts, absl::MakeSpan(stream)), stream.size());
    return stream;
  }
  absl::StatusCode Read(const std::vector<std::byte>& stream) const {
    return ReadParts(frame_, stream).status().code();
  }
  // The offset of the count of raw tokens.
  size_t RawCountAt() const {
    return frame_.own_statistics ? 1 + 4 + frame_.row_bytes() : 1;
  }
  size_t PatchCountAt() const {
    return frame_.step > 0 ? 1
                           : RawCountAt() + 2 + 2 * (2 + frame_.row_bytes());
  }
  // The status of reading a stream with one field changed.
  template <typename T>
  absl::StatusCode ReadWith(size_t at, T value) const {
    std::vector<std::byte> stream = Write(parts_);
    std::memcpy(stream.data() + at, &value, sizeof(value));
    return Read(stream);
  }

  StreamFrame frame_;
  StreamParts parts_;
  std::vector<std::byte> mean_, rows_, symbols_;
};

TEST_P(TransformStreamTest, PartsThatAreWrittenAreReadAgain) {
  std::vector<std::byte> stream = Write(parts_);
  const size_t parts_bytes = stream.size();
  stream.insert(stream.end(), symbols_.begin(), symbols_.end());
  const auto parts = ReadParts(frame_, stream);
  ASSERT_TRUE(parts.ok()) << parts.status();
  EXPECT_EQ(parts->form, StreamForm::kCoded);
  EXPECT_EQ(parts->gain, parts_.gain);
  EXPECT_EQ(parts->mean, parts_.mean);
  EXPECT_EQ(parts->raw_tokens, parts_.raw_tokens);
  EXPECT_EQ(parts->raw_rows, parts_.raw_rows);
  EXPECT_EQ(parts->symbols, absl::MakeConstSpan(symbols_));
  // Writing them again gives the same bytes.
  stream.resize(parts_bytes);
  EXPECT_EQ(Write(*parts), stream);
}

TEST_P(TransformStreamTest, AStreamWithoutRawTokensAndPatchesIsSmall) {
  StreamParts parts;
  parts.mean = parts_.mean;
  const std::vector<std::byte> stream = Write(parts);
  EXPECT_EQ(Read(stream), absl::StatusCode::kOk);
  const size_t statistics =
      frame_.step > 0 ? 0 : RawCountAt() + sizeof(uint16_t) - 1;
  EXPECT_EQ(stream.size(), 1 + statistics + sizeof(uint32_t));
}

TEST_P(TransformStreamTest, EveryTruncationIsDataLoss) {
  const std::vector<std::byte> stream = Write(parts_);
  EXPECT_EQ(Read(stream), absl::StatusCode::kOk);
  for (size_t bytes = 0; bytes < stream.size(); ++bytes) {
    // A copy of exactly that size, so that a sanitizer sees any over-read.
    const std::vector<std::byte> part(stream.begin(), stream.begin() + bytes);
    EXPECT_EQ(Read(part), absl::StatusCode::kDataLoss) << bytes;
  }
}

TEST_P(TransformStreamTest, UnknownFormsAreDataLoss) {
  for (int form = 3; form < 256; ++form) {
    EXPECT_EQ(ReadWith(0, static_cast<uint8_t>(form)),
              absl::StatusCode::kDataLoss);
  }
}

TEST_P(TransformStreamTest, MeansAndRowsThatAreNotFiniteAreDataLoss) {
  if (frame_.step > 0) return;                            // has neither
  for (const uint16_t bits : {0x7f80, 0xff80, 0x7fc1}) {  // +-infinity, NaN
    const size_t mean_at = RawCountAt() - 2;
    if (frame_.own_statistics) {
      EXPECT_EQ(ReadWith(mean_at, bits), absl::StatusCode::kDataLoss);
    }
    EXPECT_EQ(ReadWith(PatchCountAt() - 2, bits), absl::StatusCode::kDataLoss);
    std::vector<std::byte> rows(1 + 9 * frame_.row_bytes());
    rows[0] = std::byte{1};
    EXPECT_EQ(Read(rows), absl::StatusCode::kOk);
    std::memcpy(rows.data() + rows.size() - 2, &bits, sizeof(bits));
    EXPECT_EQ(Read(rows), absl::StatusCode::kDataLoss);
  }
}

TEST_P(TransformStreamTest, RowsAreForTheBaseLevelOnly) {
  const auto data_loss = absl::StatusCode::kDataLoss;
  const std::vector<std::byte> rows = Bytes(9 * frame_.row_bytes(), 5);
  StreamParts parts;
  parts.form = StreamForm::kRows;
  parts.raw_rows = rows;
  std::vector<std::byte> stream(1 + rows.size());
  ASSERT_EQ(WriteParts(frame_, parts, absl::MakeSpan(stream)), stream.size());
  const auto read = ReadParts(frame_, stream);
  if (frame_.step == 0) {
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->form, StreamForm::kRows);
    EXPECT_EQ(read->raw_rows, parts.raw_rows);
  } else {
    EXPECT_EQ(read.status().code(), data_loss);
  }
  stream.push_back(std::byte{0});
  EXPECT_EQ(Read(stream), data_loss);
  for (size_t bytes = 0; bytes + 1 < stream.size(); ++bytes) {
    EXPECT_EQ(Read({stream.begin(), stream.begin() + bytes}), data_loss);
  }
}

TEST_P(TransformStreamTest, NothingIsForTheRefiningLevelsOnly) {
  StreamParts parts;
  parts.form = StreamForm::kNothing;
  std::vector<std::byte> stream(1);
  ASSERT_EQ(WriteParts(frame_, parts, absl::MakeSpan(stream)), 1u);
  EXPECT_EQ(Read(stream), frame_.step == 0 ? absl::StatusCode::kDataLoss
                                           : absl::StatusCode::kOk);
  stream.push_back(std::byte{0});
  EXPECT_EQ(Read(stream), absl::StatusCode::kDataLoss);
}

TEST_P(TransformStreamTest, PatchesOutsideTheFrameAreDataLoss) {
  const auto data_loss = absl::StatusCode::kDataLoss;
  const size_t at = PatchCountAt();
  EXPECT_EQ(ReadWith(at, uint32_t{3}), absl::StatusCode::kOk);
  EXPECT_EQ(ReadWith(at, uint32_t{4}), data_loss);
  EXPECT_EQ(ReadWith(at, uint32_t{0x40000003}), data_loss);
  EXPECT_EQ(ReadWith(at, uint32_t{0xffffffff}), data_loss);
  // With a smaller count the other patches are read as symbols.
  EXPECT_EQ(ReadWith(at, uint32_t{2}), absl::StatusCode::kOk);
  for (size_t patch = 0; patch < 3; ++patch) {
    const size_t token = at + 4 + 4 * patch;
    EXPECT_EQ(ReadWith(token, uint16_t{9}), data_loss);
    EXPECT_EQ(ReadWith(token, uint16_t{0xffff}), data_loss);
    EXPECT_EQ(ReadWith(token + 2, uint8_t{16}), data_loss);
    EXPECT_EQ(ReadWith(token + 2, uint8_t{255}), data_loss);
    for (int value = 0; value < 256; ++value) {
      EXPECT_EQ(ReadWith(token + 3, static_cast<uint8_t>(value)),
                absl::StatusCode::kOk);
    }
  }
}

TEST_P(TransformStreamTest, RawTokensOutsideTheFrameAreDataLoss) {
  if (frame_.step > 0) return;
  const auto data_loss = absl::StatusCode::kDataLoss;
  const size_t at = RawCountAt();
  EXPECT_EQ(ReadWith(at, uint16_t{10}), data_loss);
  EXPECT_EQ(ReadWith(at, uint16_t{0xffff}), data_loss);
  EXPECT_EQ(ReadWith(at + 2, uint16_t{8}), data_loss);  // twice
  EXPECT_EQ(ReadWith(at + 2, uint16_t{9}), data_loss);
  EXPECT_EQ(ReadWith(at + 4, uint16_t{9}), data_loss);
  EXPECT_EQ(ReadWith(at + 4, uint16_t{1}), data_loss);  // not ascending
  EXPECT_EQ(ReadWith(at + 4, uint16_t{3}), absl::StatusCode::kOk);
}

TEST_P(TransformStreamTest, AScaleThatIsNotAbove0IsDataLoss) {
  if (frame_.step > 0 || !frame_.own_statistics) return;
  for (float bad : {0.0f, -0.0f, -1.0f, std::numeric_limits<float>::infinity(),
                    -std::numeric_limits<float>::infinity(),
                    std::numeric_limits<float>::quiet_NaN()}) {
    EXPECT_EQ(ReadWith(1, bad), absl::StatusCode::kDataLoss) << bad;
  }
  for (float good : {1e-38f, 1e-45f, 3e38f}) {
    EXPECT_EQ(ReadWith(1, good), absl::StatusCode::kOk) << good;
  }
}

INSTANTIATE_TEST_SUITE_P(Frames, TransformStreamTest,
                         testing::Combine(testing::Bool(),
                                          testing::Values(0, 1, 2)));

}  // namespace
}  // namespace kdn::codec
