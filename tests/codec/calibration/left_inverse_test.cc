#include "codec/calibration/left_inverse.h"

#include <gtest/gtest.h>

#include <random>

namespace kdn::codec {
namespace {

TEST(LeftInverseTest, UndoesTheMatrix) {
  constexpr int kRows = 48, kColumns = 32, kUnused = 5;
  const std::vector<float> scales = {0.25f, 3.0f, 100.0f};
  std::mt19937_64 random(7);
  std::vector<int8_t> matrix(kRows * kColumns);
  for (int8_t& value : matrix) value = static_cast<int8_t>(random());
  for (int r = 0; r < kRows; ++r) matrix[r * kColumns + kUnused] = 0;
  const auto inverse = LeftInverse(matrix, kRows, kColumns, scales);
  ASSERT_TRUE(inverse.ok()) << inverse.status();
  for (int i = 0; i < kColumns; ++i) {
    for (int j = 0; j < kColumns; ++j) {
      double sum = 0;
      for (int r = 0; r < kRows; ++r) {
        sum += double{(*inverse)[i * kRows + r]} * scales[r * 3 / kRows] *
               matrix[r * kColumns + j];
      }
      EXPECT_NEAR(sum, i == j && i != kUnused ? 1 : 0, 1e-5) << i << " " << j;
    }
  }
}

TEST(LeftInverseTest, DependentColumnsAreRefused) {
  // The third column is the sum of the others.
  const std::vector<int8_t> matrix = {1, 2, 3, 4, 5, 9, 7, 9, 16};
  EXPECT_EQ(LeftInverse(matrix, 3, 3, {1.0f}).status().code(),
            absl::StatusCode::kInvalidArgument);
  // More columns than rows.
  EXPECT_FALSE(LeftInverse(std::vector<int8_t>{1, 2}, 1, 2, {1.0f}).ok());
}

TEST(LeftInverseTest, AMatrixOfZerosHasAnInverseOfZeros) {
  const auto inverse = LeftInverse(std::vector<int8_t>(6), 2, 3, {1.0f});
  ASSERT_TRUE(inverse.ok());
  EXPECT_EQ(*inverse, std::vector<float>(6));
}

}  // namespace
}  // namespace kdn::codec
