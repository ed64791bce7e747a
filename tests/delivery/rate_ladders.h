#ifndef KDN_TESTS_DELIVERY_RATE_LADDERS_H_
#define KDN_TESTS_DELIVERY_RATE_LADDERS_H_

#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "delivery/rate_control.h"

// Ladders and targets for the tests of rate control.
namespace kdn::delivery {

inline constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();
inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

inline Rung RungOf(std::vector<uint64_t> bytes,
                   std::vector<double> distortion) {
  return Rung{Level::kInt8, std::move(bytes), std::move(distortion)};
}

// Each rung costs `step` bytes more per layer than the one before it, and has a
// quarter of its distortion. The first rung has the distortion `worst`.
inline Ladder Concave(int layers, int rungs, uint64_t step, double worst) {
  Ladder ladder{.tokens = 256, .fixed_bytes = 0, .rungs = {}};
  for (int k = 0; k < rungs; ++k) {
    ladder.rungs.push_back(
        RungOf(std::vector<uint64_t>(layers, step * (k + 1)),
               std::vector<double>(layers, worst * std::pow(0.25, k))));
  }
  return ladder;
}

inline bool Recomputes(const LevelPlan& plan, int chunk) {
  return plan.chunks[chunk].recompute;
}

inline std::vector<bool> Recomputed(const LevelPlan& plan) {
  std::vector<bool> out;
  for (const ChunkPlan& chunk : plan.chunks) out.push_back(chunk.recompute);
  return out;
}

inline DeliveryTarget Target(double rate, double prefill = 0) {
  return {.bytes_per_second = rate,
          .latency = absl::ZeroDuration(),
          .prefill_tokens_per_second = prefill,
          .now = absl::UnixEpoch(),
          .deadline = absl::UnixEpoch() + absl::Seconds(1)};
}

inline LevelPlan PlanFor(const std::vector<Ladder>& chunks,
                         const DeliveryTarget& target) {
  return PlanLevels(chunks, BudgetFor(target));
}

}  // namespace kdn::delivery

#endif  // KDN_TESTS_DELIVERY_RATE_LADDERS_H_
