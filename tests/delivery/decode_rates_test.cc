#include "delivery/decode_rates.h"

#include <gtest/gtest.h>

namespace kdn::delivery {
namespace {

constexpr uint64_t kMb = 1u << 20;
constexpr size_t kBase = static_cast<size_t>(Level::kBase);

TEST(DecodeRatesTest, AllWorkersCountAndLevelsAreApart) {
  DecodeBook book(4);
  const absl::Time now = absl::UnixEpoch();
  EXPECT_EQ(book.RatesAt(now)[kBase], 0);
  book.OnLayer(Level::kBase, kMb, absl::Milliseconds(1), now);
  book.OnLayer(Level::kBase, 3 * kMb, absl::Milliseconds(1), now);
  const DecodeRates rates = book.RatesAt(now);
  EXPECT_DOUBLE_EQ(rates[kBase], 4.0 * 4 * kMb / 2e-3);
  EXPECT_EQ(rates[static_cast<size_t>(Level::kLossless)], 0);
}

TEST(DecodeRatesTest, FollowsTheLastOnesAndForgetsWhatIsOld) {
  DecodeBook book(1);
  absl::Time now = absl::UnixEpoch();
  for (int i = 0; i < 1000; ++i) {
    book.OnLayer(Level::kBase, kMb, absl::Milliseconds(1), now);
  }
  for (int i = 0; i < 256; ++i) {
    book.OnLayer(Level::kBase, kMb, absl::Milliseconds(10), now);
  }
  EXPECT_LT(book.RatesAt(now)[kBase], 1.1 * kMb / 10e-3);
  now += DecodeBook::kForgotten;
  EXPECT_GT(book.RatesAt(now)[kBase], 0);
  now += absl::Milliseconds(1);
  EXPECT_EQ(book.RatesAt(now)[kBase], 0);
  book.OnLayer(Level::kBase, kMb, absl::Milliseconds(1), now);
  EXPECT_DOUBLE_EQ(book.RatesAt(now)[kBase], kMb / 1e-3) << "begins again";
}

TEST(DecodeRatesTest, FasterThanPrefillWithAMargin) {
  DecodeRates rates{};
  rates[kBase] = 1000;
  rates[static_cast<size_t>(Level::kBase1)] = 500;
  const LevelSet levels = LevelSet::Of(Level::kBase1).WithRefined();
  const auto faster = [&](double prefill) {
    return FasterThanPrefill(levels, rates, 10, prefill);
  };
  EXPECT_EQ(faster(0), levels) << "the engine cannot say";
  EXPECT_EQ(faster(39), levels);
  EXPECT_EQ(faster(41), LevelSet::Of(Level::kBase)) << "0.8 of 500 is 400";
  EXPECT_TRUE(faster(81).empty());
  EXPECT_EQ(
      FasterThanPrefill(LevelSet::All(), rates, 10, 81),
      LevelSet::Of(Level::kLossless).With(Level::kInt8).With(Level::kBase2))
      << "unknown ones are tried";
}

}  // namespace
}  // namespace kdn::delivery
