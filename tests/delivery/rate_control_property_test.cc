#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "delivery/rate_control.h"
#include "delivery/rate_report.h"
#include "tests/delivery/rate_ladders.h"

// The properties of PlanLevels, on random ladders of fixed seeds.
namespace kdn::delivery {
namespace {

// A ladder of random numbers. `concave`: each rung costs more than the one
// before it and removes less distortion per byte.
Ladder Random(std::mt19937& rng, int layers, int rungs, bool concave) {
  std::uniform_int_distribution<uint64_t> bytes(1, 100);
  std::uniform_real_distribution<double> share(0.1, 0.5);
  Ladder ladder{.tokens = static_cast<int>(bytes(rng)),
                .fixed_bytes = bytes(rng) / 10,
                .rungs = std::vector<Rung>(rungs, RungOf({}, {}))};
  for (int layer = 0; layer < layers; ++layer) {
    uint64_t at = bytes(rng);
    uint64_t step = 0;
    double left = 100 * share(rng);
    for (Rung& rung : ladder.rungs) {
      rung.layer_bytes.push_back(concave ? at : bytes(rng));
      rung.layer_distortion.push_back(concave ? left : 100 * share(rng));
      step += bytes(rng);
      at += step;
      left *= share(rng);
    }
  }
  return ladder;
}

std::vector<Ladder> RandomChunks(std::mt19937& rng, bool concave) {
  std::vector<Ladder> chunks;
  for (int i = 0; i < 3; ++i) chunks.push_back(Random(rng, 2, 3, concave));
  return chunks;
}

// The least distortion that is possible within `bytes` for the chunks that
// `plan` loads. Tries every combination of rungs.
double Optimum(const std::vector<Ladder>& chunks, const LevelPlan& plan,
               uint64_t bytes, size_t chunk = 0, size_t layer = 0) {
  if (chunk == chunks.size()) return 0;
  const Ladder& ladder = chunks[chunk];
  if (plan.chunks[chunk].recompute) {
    return Optimum(chunks, plan, bytes, chunk + 1, 0);
  }
  if (layer == 0) {
    if (ladder.fixed_bytes > bytes) return kInfinity;
    bytes -= ladder.fixed_bytes;
  }
  const bool last = layer + 1 == ladder.rungs[0].layer_bytes.size();
  double best = kInfinity;
  for (const Rung& rung : ladder.rungs) {
    if (rung.layer_bytes[layer] > bytes) continue;
    best = std::min(
        best, rung.layer_distortion[layer] +
                  Optimum(chunks, plan, bytes - rung.layer_bytes[layer],
                          last ? chunk + 1 : chunk, last ? 0 : layer + 1));
  }
  return best;
}

// The most distortion that one step removes. In a concave ladder a step leads
// to the next rung. In another ladder it may lead to any rung, because the hull
// may leave out the rungs between.
double LargestStep(const std::vector<Ladder>& chunks, bool concave) {
  double largest = 0;
  for (const Ladder& chunk : chunks) {
    for (size_t from = 0; from < chunk.rungs.size(); ++from) {
      for (size_t to = 0; to < chunk.rungs.size(); ++to) {
        if (concave && to != from + 1) continue;
        for (size_t l = 0; l < chunk.rungs[0].layer_bytes.size(); ++l) {
          largest = std::max(largest, chunk.rungs[from].layer_distortion[l] -
                                          chunk.rungs[to].layer_distortion[l]);
        }
      }
    }
  }
  return largest;
}

uint64_t CheapestBytes(const Ladder& chunk) {
  uint64_t bytes = chunk.fixed_bytes;
  for (size_t layer = 0; layer < chunk.rungs[0].layer_bytes.size(); ++layer) {
    uint64_t least = kNoLimit;
    for (const Rung& rung : chunk.rungs) {
      least = std::min(least, rung.layer_bytes[layer]);
    }
    bytes += least;
  }
  return bytes;
}

// The most tokens that fit into `bytes`. Tries every set of chunks.
int64_t MostTokens(const std::vector<Ladder>& chunks, uint64_t bytes) {
  int64_t most = 0;
  for (uint32_t set = 0; set < 1u << chunks.size(); ++set) {
    uint64_t needed = 0;
    int64_t tokens = 0;
    for (size_t i = 0; i < chunks.size(); ++i) {
      if ((set >> i & 1) == 0) continue;
      needed += CheapestBytes(chunks[i]);
      tokens += chunks[i].tokens;
    }
    if (needed <= bytes) most = std::max(most, tokens);
  }
  return most;
}

TEST(RateControlPropertyTest, NeverExceedsTheBudgetAndIsNearTheOptimum) {
  std::mt19937 rng(1);
  for (int round = 0; round < 400; ++round) {
    const bool concave = round % 2 == 0;
    const std::vector<Ladder> chunks = RandomChunks(rng, concave);
    const double step = LargestStep(chunks, concave);
    for (uint64_t bytes = 0; bytes < 2000; bytes += 37) {
      const LevelPlan plan = PlanLevels(chunks, {.bytes_max = bytes});
      ASSERT_LE(plan.bytes, bytes);
      const double optimum = Optimum(chunks, plan, bytes);
      ASSERT_GE(plan.distortion, optimum - 1e-9);
      ASSERT_LE(plan.distortion, optimum + step);
    }
  }
}

TEST(RateControlPropertyTest, LoadsWithinOneChunkOfTheMostTokens) {
  std::mt19937 rng(8);
  for (int round = 0; round < 400; ++round) {
    const std::vector<Ladder> chunks = RandomChunks(rng, round % 2 == 0);
    for (uint64_t bytes = 0; bytes < 700; bytes += 13) {
      const LevelPlan plan = PlanLevels(chunks, {.bytes_max = bytes});
      const int64_t most = MostTokens(chunks, bytes);
      ASSERT_LE(plan.tokens_loaded, most);
      ASSERT_GE(plan.tokens_loaded, most - 100)
          << "a chunk has at most 100 tokens";
    }
  }
}

TEST(RateControlPropertyTest, IsExactWhereStepsAreEqual) {
  std::mt19937 rng(2);
  std::uniform_real_distribution<double> worst(1, 9);
  for (int round = 0; round < 50; ++round) {
    std::vector<Ladder> chunks;
    for (int i = 0; i < 3; ++i) chunks.push_back(Concave(2, 3, 10, worst(rng)));
    for (uint64_t bytes = 60; bytes <= 180; bytes += 10) {
      const LevelPlan plan = PlanLevels(chunks, {.bytes_max = bytes});
      ASSERT_NEAR(plan.distortion, Optimum(chunks, plan, bytes), 1e-9);
    }
  }
}

TEST(RateControlPropertyTest, MoreRateIsNeverWorse) {
  std::mt19937 rng(3);
  for (int round = 0; round < 300; ++round) {
    const std::vector<Ladder> chunks = RandomChunks(rng, round % 2 == 0);
    DeliveryTarget target = Target(0, round % 3 == 0 ? 0 : 100);
    target.latency = absl::Milliseconds(round % 5);
    target.reuse = round % 4 < 2 ? Reuse::kAnyChunk : Reuse::kLeadingChunks;
    LevelPlan before = PlanFor(chunks, target);
    for (double rate = 10; rate < 1e4; rate *= 1.03) {
      target.bytes_per_second = rate;
      LevelPlan plan = PlanFor(chunks, target);
      ASSERT_LE(plan.tokens_recomputed, before.tokens_recomputed);
      if (Recomputed(plan) == Recomputed(before)) {
        ASSERT_LE(plan.distortion, before.distortion + 1e-9);
      }
      before = std::move(plan);
    }
  }
}

TEST(RateControlPropertyTest, IsNeverSlowerThanRecomputingAll) {
  std::mt19937 rng(5);
  std::uniform_real_distribution<double> power(0, 5);
  int loads = 0;
  for (int round = 0; round < 3000; ++round) {
    const std::vector<Ladder> chunks = RandomChunks(rng, round % 2 == 0);
    DeliveryTarget target =
        Target(std::pow(10, power(rng)), std::pow(10, power(rng)));
    target.latency = absl::Milliseconds(power(rng));
    target.reuse = round % 3 ? Reuse::kAnyChunk : Reuse::kLeadingChunks;
    const LevelPlan plan = PlanFor(chunks, target);
    const Prediction predicted = Predict(plan, target);
    ASSERT_LE(predicted.total(), predicted.prefill_all);
    ASSERT_LE(*predicted.load, absl::Seconds(1));
    loads += plan.chunks_loaded > 0 ? 1 : 0;
  }
  EXPECT_GT(loads, 500);
  EXPECT_LT(loads, 2500);
}

TEST(RateControlPropertyTest, AChunkIsLoadedWholeOrNotAtAll) {
  std::mt19937 rng(6);
  for (uint64_t bytes = 0; bytes < 1000; bytes += 11) {
    const std::vector<Ladder> chunks = RandomChunks(rng, true);
    for (const ChunkPlan& chunk :
         PlanLevels(chunks, {.bytes_max = bytes}).chunks) {
      EXPECT_EQ(chunk.rung_of_layer.size(), chunk.recompute ? 0u : 2u);
    }
  }
}

TEST(RateControlPropertyTest, WorkIsBoundedByTheRungs) {
  std::mt19937 rng(7);
  std::vector<Ladder> chunks;
  for (int i = 0; i < 1000; ++i) chunks.push_back(Random(rng, 80, 3, true));
  uint64_t base = 0;
  for (const Ladder& chunk : chunks) {
    base += chunk.fixed_bytes;
    for (uint64_t bytes : chunk.rungs[0].layer_bytes) base += bytes;
  }
  const LevelPlan plan = PlanLevels(chunks, {.bytes_max = 2 * base});
  EXPECT_EQ(plan.chunks_loaded, 1000);
  EXPECT_EQ(plan.steps_weighed, 1000 * 80 * 2);
  EXPECT_LE(plan.bytes, 2 * base);
  EXPECT_GT(plan.bytes, 2 * base - 200) << "the rest is too small for any step";
}

}  // namespace
}  // namespace kdn::delivery
