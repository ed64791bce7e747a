#include "delivery/rate_control.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "delivery/rate_report.h"
#include "tests/delivery/rate_ladders.h"

namespace kdn::delivery {
namespace {

TEST(BudgetTest, LeavesAMarginAndTheLatency) {
  DeliveryTarget target = Target(1000, 10);
  target.latency = absl::Milliseconds(500);
  const SendBudget budget = BudgetFor(target);
  EXPECT_EQ(budget.bytes_max, 400u);
  EXPECT_EQ(budget.setup_bytes, 400u);
  EXPECT_DOUBLE_EQ(*budget.bytes_per_token_max, 80);
}

TEST(BudgetTest, LevelsThatAreTooSlowToDecodeAreALimit) {
  DeliveryTarget target = Target(1e9);
  target.bytes_per_second = std::nullopt;
  EXPECT_TRUE(BudgetFor(target).unlimited());
  target.too_slow = LevelSet::Of(Level::kBase2);
  EXPECT_EQ(BudgetFor(target).too_slow, target.too_slow);
  EXPECT_FALSE(BudgetFor(target).unlimited());
}

TEST(BudgetTest, NothingIsLoadedAfterTheDeadline) {
  DeliveryTarget target = Target(1e9);
  target.deadline = target.now;
  EXPECT_EQ(BudgetFor(target).bytes_max, 0u);
  target.bytes_per_second = std::nullopt;
  EXPECT_EQ(BudgetFor(target).bytes_max, 0u);
  target.deadline = absl::InfinitePast();
  EXPECT_EQ(BudgetFor(target).bytes_max, 0u);
}

TEST(BudgetTest, ImpossibleRatesGiveNothing) {
  EXPECT_EQ(BudgetFor(Target(0)).bytes_max, 0u);
  EXPECT_EQ(BudgetFor(Target(-1)).bytes_max, 0u);
  EXPECT_EQ(BudgetFor(Target(std::nan(""))).bytes_max, 0u);
  EXPECT_EQ(BudgetFor(Target(kInfinity)).bytes_max, kNoLimit);
  DeliveryTarget target = Target(0);
  target.deadline = absl::InfiniteFuture();
  EXPECT_EQ(BudgetFor(target).bytes_max, 0u);
}

TEST(RateControlTest, NoChunksNoPlan) {
  EXPECT_TRUE(PlanLevels({}, {.bytes_max = 1}).chunks.empty());
}

TEST(RateControlTest, AnUnknownRateAsksForTheBest) {
  DeliveryTarget target = Target(1, 1e9);
  target.bytes_per_second = std::nullopt;
  const LevelPlan plan = PlanFor({Concave(4, 3, 100, 1)}, target);
  EXPECT_EQ(plan.chunks[0].rung_of_layer, (std::vector<uint8_t>{2, 2, 2, 2}));
  EXPECT_EQ(plan.bytes, 1200u);
}

TEST(RateControlTest, RecomputesAllWhenThereIsNoTimeOrNoRate) {
  const std::vector<Ladder> chunks(3, Concave(2, 3, 100, 1));
  DeliveryTarget late = Target(1e9, 100);
  late.deadline = late.now - absl::Seconds(1);
  for (const DeliveryTarget& target : {late, Target(0), Target(0, 100)}) {
    const LevelPlan plan = PlanFor(chunks, target);
    EXPECT_EQ(plan.chunks_loaded, 0);
    EXPECT_EQ(plan.bytes, 0u);
    EXPECT_EQ(plan.tokens_recomputed, 3 * 256);
    EXPECT_TRUE(plan.chunks[0].rung_of_layer.empty());
  }
}

TEST(RateControlTest, LowerLayersAreImprovedFirst) {
  const std::vector<Ladder> chunks(2, Concave(4, 3, 100, 1));
  // At their cheapest rungs both chunks take 800 bytes. The rest is enough for
  // three steps of equal value.
  const LevelPlan plan = PlanLevels(chunks, {.bytes_max = 1199});
  EXPECT_EQ(plan.chunks[0].rung_of_layer, (std::vector<uint8_t>{1, 1, 0, 0}));
  EXPECT_EQ(plan.chunks[1].rung_of_layer, (std::vector<uint8_t>{1, 0, 0, 0}));
}

TEST(RateControlTest, GivesUpTheFewestTokensPerByteFirst) {
  std::vector<Ladder> chunks(3, Concave(1, 1, 100, 1));
  chunks[0].tokens = 100;
  const LevelPlan plan = PlanLevels(chunks, {.bytes_max = 250});
  EXPECT_EQ(Recomputed(plan), (std::vector<bool>{true, false, false}));
}

TEST(RateControlTest, GivesUpFromTheEndForAPrefixCache) {
  std::vector<Ladder> chunks(3, Concave(1, 1, 100, 1));
  chunks[0].tokens = 100;
  SendBudget budget{.bytes_max = 250, .reuse = Reuse::kLeadingChunks};
  EXPECT_EQ(Recomputed(PlanLevels(chunks, budget)),
            (std::vector<bool>{false, false, true}));
  chunks[1].rungs.clear();
  EXPECT_EQ(Recomputed(PlanLevels(chunks, budget)),
            (std::vector<bool>{false, true, true}));
}

TEST(RateControlTest, LoadsAnExpensiveChunkBeforeCheapOnes) {
  std::vector<Ladder> chunks(3, Concave(1, 1, 100, 1));
  chunks[0].rungs[0].layer_bytes[0] = 300;
  // The engine prefills a token in the time of one byte: 256 bytes a chunk.
  SendBudget budget{.bytes_max = 1000,
                    .bytes_per_token_max = 1.0,
                    .reuse = Reuse::kLeadingChunks};
  EXPECT_EQ(PlanLevels(chunks, budget).chunks_loaded, 3);
  budget.reuse = Reuse::kAnyChunk;
  EXPECT_TRUE(Recomputes(PlanLevels(chunks, budget), 0));
  EXPECT_EQ(PlanLevels(chunks, budget).chunks_loaded, 2);
}

TEST(RateControlTest, AChunkWithoutRungsIsRecomputed) {
  const std::vector<Ladder> chunks{Ladder{.tokens = 9, .rungs = {}},
                                   Concave(1, 2, 100, 1)};
  const LevelPlan plan = PlanLevels(chunks, {.bytes_max = kNoLimit});
  EXPECT_EQ(Recomputed(plan), (std::vector<bool>{true, false}));
  EXPECT_EQ(plan.tokens_recomputed, 9);
}

TEST(RateControlTest, RecomputesAChunkThatTheEngineComputesFaster) {
  const std::vector<Ladder> chunks(4, Concave(2, 3, 100'000, 1));
  // Prefilling 256 tokens takes 10 ms. Loading a chunk at its cheapest takes 20
  // ms at the first rate and 2 ms at the second.
  EXPECT_EQ(PlanFor(chunks, Target(1e7, 25'600)).chunks_loaded, 0);
  EXPECT_EQ(PlanFor(chunks, Target(1e8, 25'600)).chunks_loaded, 4);
  // When the engine's rate is unknown, all chunks that arrive in time are
  // loaded.
  EXPECT_EQ(PlanFor(chunks, Target(1e7)).chunks_loaded, 4);
}

TEST(RateControlTest, LoadingMustSaveMoreThanTheLatency) {
  const std::vector<Ladder> chunks(4, Concave(2, 1, 100'000, 1));
  DeliveryTarget target = Target(1e8, 25'600);
  target.latency = absl::Milliseconds(29);  // loading saves 4 x (10 - 2 / 0.8)
  EXPECT_EQ(PlanFor(chunks, target).chunks_loaded, 4);
  target.latency = absl::Milliseconds(31);
  EXPECT_EQ(PlanFor(chunks, target).chunks_loaded, 0);
}

TEST(RateControlTest, ALinkThrottledToATenthMeetsTheDeadlineAtALowerLevel) {
  const std::vector<Ladder> chunks(32, Concave(32, 3, 100'000, 1));
  DeliveryTarget target = Target(1e9, 5'000);
  target.latency = absl::Milliseconds(2);
  target.deadline = target.now + absl::Milliseconds(1500);
  const LevelPlan fast = PlanFor(chunks, target);
  EXPECT_EQ(fast.distortion, 32 * 32 * 0.0625)
      << "every layer at its best rung";
  target.bytes_per_second = 1e8;
  const LevelPlan slow = PlanFor(chunks, target);
  EXPECT_EQ(slow.chunks_loaded, 32);
  EXPECT_GT(slow.distortion, fast.distortion);
  EXPECT_LE(*Predict(slow, target).load, absl::Milliseconds(1500));
  target.bytes_per_second = 1e7;
  EXPECT_EQ(PlanFor(chunks, target).chunks_loaded, 0) << "prefill is faster";
  target.prefill_tokens_per_second = 0;
  const LevelPlan slowest = PlanFor(chunks, target);
  EXPECT_EQ(slowest.chunks_loaded, 3)
      << "as many as arrive at the cheapest rung";
  EXPECT_LE(*Predict(slowest, target).load, absl::Milliseconds(1500));
}

TEST(RateControlTest, ARungBelowTheHullIsPassedOver) {
  Ladder ladder{.tokens = 256, .fixed_bytes = 0, .rungs = {}};
  ladder.rungs = {RungOf({10}, {9}), RungOf({60}, {8}), RungOf({70}, {1}),
                  RungOf({80}, {2}), RungOf({10}, {9.5})};
  const auto rung = [&](uint64_t bytes) {
    return PlanLevels({ladder}, {.bytes_max = bytes})
        .chunks[0]
        .rung_of_layer[0];
  };
  EXPECT_EQ(rung(69), 0) << "rung 1 is below the hull";
  EXPECT_EQ(rung(70), 2);
  EXPECT_EQ(rung(1000), 2) << "rung 3 costs more and is worse";
}

TEST(RateControlTest, HugeSizesDoNotOverflow) {
  std::vector<Ladder> chunks(3, Concave(3, 1, kNoLimit, 1));
  EXPECT_EQ(PlanLevels(chunks, {.bytes_max = kNoLimit - 1}).chunks_loaded, 0);
  for (Ladder& chunk : chunks) {
    chunk.fixed_bytes = kNoLimit;
    chunk.tokens = std::numeric_limits<int>::max();
  }
  chunks.push_back(Concave(2, 2, 10, 1));
  SendBudget budget{.bytes_max = 30,
                    .bytes_per_token_max = kInfinity,
                    .setup_bytes = kNoLimit / 2};
  const LevelPlan plan = PlanLevels(chunks, budget);
  EXPECT_EQ(Recomputed(plan), (std::vector<bool>{true, true, true, false}));
  EXPECT_EQ(plan.bytes, 30u);
  EXPECT_EQ(plan.tokens_recomputed,
            3 * int64_t{std::numeric_limits<int>::max()});
}

TEST(RateControlTest, AnImpossibleDistortionIsInfinite) {
  Ladder ladder{.tokens = 256, .fixed_bytes = 0, .rungs = {}};
  ladder.rungs = {RungOf({10}, {std::nan("")}), RungOf({20}, {-1}),
                  RungOf({30}, {kInfinity}), RungOf({40}, {5})};
  const LevelPlan plan = PlanLevels({ladder}, {.bytes_max = 100});
  EXPECT_EQ(plan.chunks[0].rung_of_layer[0], 3);
  EXPECT_EQ(PlanLevels({ladder}, {.bytes_max = 35}).bytes, 10u);
}

}  // namespace
}  // namespace kdn::delivery
