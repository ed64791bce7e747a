#include "model/linear.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>
#include <vector>

#include "kv/dtype.h"

namespace kdn::model {
namespace {

constexpr int kInputs = 32;
constexpr int kOutputs = 24;

std::vector<float> Random(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(count);
  for (float& value : values) value = uniform(random);
  return values;
}

Linear MakeLinear(Compute compute) {
  return Linear(Random(kInputs * kOutputs, 1), Random(kOutputs, 2), kOutputs,
                kInputs, compute);
}

float Rounded(float value, Compute compute) {
  return compute == Compute::kBf16 ? Bf16ToFloat(FloatToBf16(value)) : value;
}

class LinearTest : public testing::TestWithParam<Compute> {};

TEST_P(LinearTest, IsTheProductOfTheRoundedValues) {
  const std::vector<float> weights = Random(kInputs * kOutputs, 1);
  const std::vector<float> bias = Random(kOutputs, 2);
  const Linear linear = MakeLinear(GetParam());
  for (int rows : {1, 3, 300}) {
    const std::vector<float> x = Random(static_cast<size_t>(rows) * kInputs, 3);
    const std::vector<float> y = linear.Apply(x, rows);
    ASSERT_EQ(y.size(), static_cast<size_t>(rows) * kOutputs);
    for (int row = 0; row < rows; ++row) {
      for (int out = 0; out < kOutputs; ++out) {
        double sum = bias[out];
        for (int in = 0; in < kInputs; ++in) {
          sum +=
              static_cast<double>(Rounded(x[row * kInputs + in], GetParam())) *
              Rounded(weights[out * kInputs + in], GetParam());
        }
        EXPECT_NEAR(y[row * kOutputs + out], sum, 1e-5) << row << ' ' << out;
      }
    }
  }
}

TEST_P(LinearTest, ThreadsShareOneLayer) {
  const Linear linear = MakeLinear(GetParam());
  constexpr int kRowsMax = 40;  // several kernels, made while others run
  const Linear alone = MakeLinear(GetParam());
  std::vector<std::vector<float>> expected;
  for (int rows = 1; rows <= kRowsMax; ++rows) {
    expected.push_back(
        alone.Apply(Random(static_cast<size_t>(rows) * kInputs, rows), rows));
  }
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&linear, &expected, thread] {
      for (int i = 0; i < kRowsMax; ++i) {
        const int rows = 1 + (i + 10 * thread) % kRowsMax;
        EXPECT_EQ(linear.Apply(
                      Random(static_cast<size_t>(rows) * kInputs, rows), rows),
                  expected[rows - 1]);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

INSTANTIATE_TEST_SUITE_P(Computes, LinearTest,
                         testing::Values(Compute::kFp32, Compute::kBf16));

}  // namespace
}  // namespace kdn::model
