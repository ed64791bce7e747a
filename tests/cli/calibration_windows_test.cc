#include <gtest/gtest.h>

#include <numeric>

#include "cli/calibration_run.h"

namespace kdn::cli {
namespace {

std::vector<int32_t> Text(int32_t first, size_t tokens) {
  std::vector<int32_t> text(tokens);
  std::iota(text.begin(), text.end(), first);
  return text;
}

constexpr size_t kWindow = kCalibrationWindow;

TEST(CalibrationWindows, AreInProportionToTheTexts) {
  const std::vector<std::vector<int32_t>> texts = {
      Text(0, 100 * kWindow), Text(1'000'000, 300 * kWindow)};
  const auto windows = CalibrationWindows(texts, 32);
  ASSERT_EQ(windows.size(), 32u);
  size_t of_first = 0;
  for (const auto& window : windows) {
    EXPECT_EQ(window.size(), kWindow);
    of_first += window.front() < 1'000'000 ? 1 : 0;
  }
  EXPECT_EQ(of_first, 8u);
}

TEST(CalibrationWindows, DoNotOverlapAndSpanTheText) {
  for (const size_t length :
       {kWindow, 2 * kWindow - 1, 2 * kWindow, 7 * kWindow + 3, 90 * kWindow}) {
    const std::vector<std::vector<int32_t>> texts = {Text(0, length)};
    const auto windows = CalibrationWindows(texts, 8);
    EXPECT_EQ(windows.size(), std::min<size_t>(8, length / kWindow));
    int32_t last = -1;
    for (const auto& window : windows) {
      EXPECT_GT(window.front(), last);
      last = window.back();
      EXPECT_LT(last, static_cast<int32_t>(length));
    }
  }
}

TEST(CalibrationWindows, TakeShortTextsWholeAndLeaveOutEmptyOnes) {
  const std::vector<std::vector<int32_t>> texts = {
      Text(5, 10), {}, Text(50, 20)};
  const auto windows = CalibrationWindows(texts, 1);
  ASSERT_EQ(windows.size(), 2u);
  EXPECT_EQ(windows[0], texts[0]);
  EXPECT_EQ(windows[1], texts[2]);
  EXPECT_TRUE(CalibrationWindows({}, 4).empty());
}

}  // namespace
}  // namespace kdn::cli
