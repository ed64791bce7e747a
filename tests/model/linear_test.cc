#include "model/linear.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>
#include <vector>

#include "kv/dtype.h"

namespace kdn::model {
namespace {

std::vector<float> Random(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(count);
  for (float& value : values) value = uniform(random);
  return values;
}

float Rounded(float value, Compute compute) {
  return compute == Compute::kBf16 ? Bf16ToFloat(FloatToBf16(value)) : value;
}

std::vector<float> Apply(const Linear& linear, const std::vector<float>& x,
                         int rows) {
  OperandRows input;
  input.Resize(linear.operand(), rows, linear.inputs());
  for (int row = 0; row < rows; ++row) {
    input.Write(row, 0, &x[static_cast<size_t>(row) * linear.inputs()],
                linear.inputs());
  }
  std::vector<float> y(static_cast<size_t>(rows) * linear.outputs());
  linear.Apply(input, rows, false, y.data());
  return y;
}

class LinearTest : public testing::TestWithParam<Compute> {
 protected:
  HugeMemory memory_;
};

TEST_P(LinearTest, IsTheProductOfTheRoundedValues) {
  // Whole and partial panels; an odd number of inputs is filled up.
  for (const auto& [inputs, outputs] :
       {std::pair{32, 24}, std::pair{33, 64}, std::pair{130, 200}}) {
    const std::vector<float> weights =
        Random(static_cast<size_t>(inputs) * outputs, 1);
    const std::vector<float> bias = Random(outputs, 2);
    const Linear linear(weights, bias, outputs, inputs, GetParam(), memory_);
    for (const int rows : {1, 3, 300}) {
      const auto x = Random(static_cast<size_t>(rows) * inputs, 3);
      const std::vector<float> y = Apply(linear, x, rows);
      for (int row = 0; row < rows; ++row) {
        for (int out = 0; out < outputs; ++out) {
          double sum = bias[out];
          for (int in = 0; in < inputs; ++in) {
            sum +=
                static_cast<double>(Rounded(x[row * inputs + in], GetParam())) *
                Rounded(weights[out * inputs + in], GetParam());
          }
          ASSERT_NEAR(y[row * outputs + out], sum, 4e-5)
              << inputs << ' ' << row << ' ' << out;
        }
      }
    }
  }
}

TEST_P(LinearTest, ARowHasTheSameBitsInEveryCall) {
  constexpr int kInputs = 96;
  constexpr int kOutputs = 320;
  constexpr int kRows = 300;
  const Linear linear(Random(kInputs * kOutputs, 1), {}, kOutputs, kInputs,
                      GetParam(), memory_);
  const std::vector<float> x = Random(kRows * kInputs, 4);
  const std::vector<float> all = Apply(linear, x, kRows);
  for (const int rows : {1, 2, 5, 7, 128, 129}) {
    for (const int begin : {0, 11, kRows - rows}) {
      const auto first = x.begin() + begin * kInputs;
      const std::vector<float> some =
          Apply(linear, {first, first + rows * kInputs}, rows);
      const auto wanted = all.begin() + begin * kOutputs;
      EXPECT_EQ(some, std::vector<float>(wanted, wanted + rows * kOutputs))
          << rows << " rows from row " << begin;
    }
  }
}

TEST_P(LinearTest, AddsToWhatIsThere) {
  const Linear linear(Random(64 * 64, 1), {}, 64, 64, GetParam(), memory_);
  OperandRows x;
  x.Resize(linear.operand(), 1, 64);
  x.Write(0, 0, Random(64, 2).data(), 64);
  std::vector<float> product(64);
  linear.Apply(x, 1, false, product.data());
  const std::vector<float> before = Random(64, 3);
  std::vector<float> sum = before;
  linear.Apply(x, 1, true, sum.data());
  for (int i = 0; i < 64; ++i) EXPECT_EQ(sum[i], before[i] + product[i]);
}

TEST_P(LinearTest, ThreadsShareOneLayer) {
  constexpr int kInputs = 32;
  constexpr int kOutputs = 24;
  const Linear linear(Random(kInputs * kOutputs, 1), Random(kOutputs, 2),
                      kOutputs, kInputs, GetParam(), memory_);
  constexpr int kRowsMax = 40;
  std::vector<std::vector<float>> expected;
  for (int rows = 1; rows <= kRowsMax; ++rows) {
    expected.push_back(
        Apply(linear, Random(static_cast<size_t>(rows) * kInputs, rows), rows));
  }
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&linear, &expected, thread] {
      for (int i = 0; i < kRowsMax; ++i) {
        const int rows = 1 + (i + 10 * thread) % kRowsMax;
        const auto x = Random(static_cast<size_t>(rows) * kInputs, rows);
        EXPECT_EQ(Apply(linear, x, rows), expected[rows - 1]);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

INSTANTIATE_TEST_SUITE_P(Computes, LinearTest,
                         testing::Values(Compute::kFp32, Compute::kBf16));

}  // namespace
}  // namespace kdn::model
