#include "delivery/decode_rates.h"

#include <gtest/gtest.h>

namespace kdn::delivery {
namespace {

constexpr uint64_t kMb = 1u << 20;
constexpr size_t kBase = static_cast<size_t>(Level::kBase);

TEST(DecodeRatesTest, CountsAllWorkersAndKeepsLevelsApart) {
  DecodeRateEstimate book(4);
  const absl::Time now = absl::UnixEpoch();
  EXPECT_EQ(book.RatesAt(now)[kBase], 0);
  for (int i = 0; i < DecodeRateEstimate::kLayersMin / 2; ++i) {
    EXPECT_EQ(book.RatesAt(now)[kBase], 0) << "too few";
    book.OnLayer(Level::kBase, kMb, absl::Milliseconds(1), now);
    book.OnLayer(Level::kBase, 3 * kMb, absl::Milliseconds(1), now);
  }
  const DecodeRates rates = book.RatesAt(now);
  EXPECT_NEAR(rates[kBase], 4.0 * 4 * kMb / 2e-3, 1);
  EXPECT_EQ(rates[static_cast<size_t>(Level::kLossless)], 0);
}

TEST(DecodeRatesTest, FollowsRecentLayersAndForgetsOldOnes) {
  DecodeRateEstimate book(1);
  absl::Time now = absl::UnixEpoch();
  for (int i = 0; i < 1000; ++i) {
    book.OnLayer(Level::kBase, kMb, absl::Milliseconds(1), now);
  }
  book.OnLayer(Level::kBase, kMb, absl::Milliseconds(100), now);
  EXPECT_GT(book.RatesAt(now)[kBase], 0.8 * kMb / 1e-3)
      << "one slow layer changes little";
  book.OnLayer(Level::kBase, kMb, absl::Hours(-1), now);
  EXPECT_GT(book.RatesAt(now)[kBase], 0.8 * kMb / 1e-3)
      << "the clock was set back";
  for (int i = 0; i < 400; ++i) {
    book.OnLayer(Level::kBase, kMb, absl::Milliseconds(10), now);
  }
  EXPECT_LT(book.RatesAt(now)[kBase], 1.1 * kMb / 10e-3);
  now += DecodeRateEstimate::kForgotten;
  EXPECT_GT(book.RatesAt(now)[kBase], 0);
  now += absl::Milliseconds(1);
  EXPECT_EQ(book.RatesAt(now)[kBase], 0);
  for (int i = 0; i < DecodeRateEstimate::kLayersMin; ++i) {
    book.OnLayer(Level::kBase, kMb, absl::Milliseconds(1), now);
  }
  EXPECT_NEAR(book.RatesAt(now)[kBase], kMb / 1e-3, 1)
      << "the old layers are forgotten";
}

TEST(DecodeRatesTest, SlowerThanPrefillWithAMargin) {
  DecodeRates rates{};
  rates[kBase] = 1000;
  rates[static_cast<size_t>(Level::kBase1)] = 500;
  const auto slower = [&](double prefill) {
    return SlowerThanPrefill(rates, 10, prefill);
  };
  EXPECT_TRUE(slower(0).empty()) << "the engine's rate is unknown";
  EXPECT_TRUE(slower(39).empty());
  EXPECT_EQ(slower(41), LevelSet::Of(Level::kBase1)) << "0.8 of 500 is 400";
  EXPECT_EQ(slower(81), LevelSet::Of(Level::kBase1).With(Level::kBase))
      << "a level of unknown rate is tried";
}

}  // namespace
}  // namespace kdn::delivery
