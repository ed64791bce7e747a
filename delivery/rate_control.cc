#include "delivery/rate_control.h"

#include <algorithm>
#include <limits>
#include <tuple>

#include "absl/numeric/int128.h"
#include "kv/check.h"

namespace kdn::delivery {
namespace {

constexpr uint64_t kNoLimit = SendBudget::kNoLimit;
constexpr size_t kRungsMax = 255;
constexpr size_t kLayersMax = 65535;

// The sum, or the largest number when the sum overflows.
uint64_t Add(uint64_t a, uint64_t b) {
  return a > kNoLimit - b ? kNoLimit : a + b;
}

// Rounds down, so that rounding never exceeds a budget.
uint64_t ToBytes(double bytes) {
  if (!(bytes > 0)) return 0;
  return bytes >= static_cast<double>(kNoLimit) ? kNoLimit
                                                : static_cast<uint64_t>(bytes);
}

// One layer of a chunk at one rung.
struct Point {
  uint64_t bytes = 0;
  double distortion = 0;
  uint8_t rung = 0;

  bool operator<(const Point& other) const {
    return std::tie(bytes, distortion, rung) <
           std::tie(other.bytes, other.distortion, other.rung);
  }
};

Point PointOf(const Ladder& chunk, size_t rung, size_t layer) {
  const double distortion = chunk.rungs[rung].layer_distortion[layer];
  return {
      chunk.rungs[rung].layer_bytes[layer],
      distortion >= 0 ? distortion : std::numeric_limits<double>::infinity(),
      static_cast<uint8_t>(rung)};
}

size_t LayersOf(const Ladder& chunk) {
  return chunk.rungs.empty() ? 0 : chunk.rungs[0].layer_bytes.size();
}

Point CheapestOf(const Ladder& chunk, size_t layer) {
  Point cheapest = PointOf(chunk, 0, layer);
  for (size_t rung = 1; rung < chunk.rungs.size(); ++rung) {
    cheapest = std::min(cheapest, PointOf(chunk, rung, layer));
  }
  return cheapest;
}

double ValueOf(const Point& from, const Point& to) {
  return (from.distortion - to.distortion) /
         static_cast<double>(to.bytes - from.bytes);
}

// The rungs of one layer on the convex hull, cheapest first: each step removes
// less distortion per byte than the step before it. The hull compares the same
// values by which the steps are sorted later, so no rounding puts a step before
// its predecessor.
void HullOf(const Ladder& chunk, size_t layer, std::vector<Point>& points,
            std::vector<Point>& hull) {
  points.clear();
  for (size_t rung = 0; rung < chunk.rungs.size(); ++rung) {
    points.push_back(PointOf(chunk, rung, layer));
  }
  std::sort(points.begin(), points.end());
  hull.clear();
  for (const Point& point : points) {
    if (!hull.empty() && !(point.distortion < hull.back().distortion)) continue;
    while (hull.size() > 1 && ValueOf(hull[hull.size() - 2], hull.back()) <=
                                  ValueOf(hull.back(), point)) {
      hull.pop_back();
    }
    hull.push_back(point);
  }
}

// An improvement of one layer of one chunk.
struct Step {
  double value = 0;
  uint64_t bytes = 0;
  uint32_t chunk = 0;
  uint16_t layer = 0;
  uint8_t from = 0;
  uint8_t to = 0;

  bool operator<(const Step& other) const {
    return std::tie(other.value, layer, chunk) <
           std::tie(value, other.layer, other.chunk);
  }
};

void CheckShape(const Ladder& chunk) {
  const size_t layers = LayersOf(chunk);
  KDN_CHECK(chunk.tokens >= 0, "a chunk has tokens");
  KDN_CHECK(chunk.rungs.size() <= kRungsMax && layers <= kLayersMax,
            "a ladder of impossible size");
  for (const Rung& rung : chunk.rungs) {
    KDN_CHECK(rung.layer_bytes.size() == layers &&
                  rung.layer_distortion.size() == layers,
              "rungs of one chunk have the same layers");
  }
}

// By chunk: its bytes at its cheapest rungs.
std::vector<uint64_t> FloorsOf(absl::Span<const Ladder> chunks) {
  std::vector<uint64_t> floors;
  floors.reserve(chunks.size());
  for (const Ladder& chunk : chunks) {
    CheckShape(chunk);
    uint64_t bytes = chunk.fixed_bytes;
    for (size_t layer = 0; layer < LayersOf(chunk); ++layer) {
      bytes = Add(bytes, CheapestOf(chunk, layer).bytes);
    }
    floors.push_back(bytes);
  }
  return floors;
}

// The order in which chunks are loaded while the budget lasts: by the tokens
// per byte that they save the engine, or from the front of the text.
std::vector<uint32_t> LoadOrder(absl::Span<const Ladder> chunks,
                                absl::Span<const uint64_t> floors,
                                Reuse reuse) {
  std::vector<uint32_t> order;
  for (uint32_t i = 0; i < chunks.size(); ++i) {
    if (!chunks[i].rungs.empty()) {
      order.push_back(i);
    } else if (reuse == Reuse::kLeadingChunks) {
      break;
    }
  }
  if (reuse == Reuse::kLeadingChunks) return order;
  std::vector<double> cost;
  for (uint32_t i = 0; i < chunks.size(); ++i) {
    cost.push_back(static_cast<double>(floors[i]) /
                   std::max(chunks[i].tokens, 1));
  }
  std::sort(order.begin(), order.end(), [&cost](uint32_t a, uint32_t b) {
    return std::tie(cost[a], a) < std::tie(cost[b], b);
  });
  return order;
}

// How many chunks of the load order to load at their cheapest rungs, and the
// bytes that are left to improve them.
struct Choice {
  size_t count = 0;
  uint64_t room = 0;
};

// Chooses k, so that loading the first k chunks of the order fits into the
// budget and saves the most time; the largest such k. The sum over the chunks
// decides, not each chunk: chunks that save time make up for a chunk before
// them that does not, and for the link's latency. A higher rate lets more
// chunks fit and makes each chunk save more time, so the best k grows with the
// rate (Topkis).
Choice ChooseLoaded(absl::Span<const Ladder> chunks,
                    absl::Span<const uint64_t> floors,
                    absl::Span<const uint32_t> order,
                    const SendBudget& budget) {
  Choice best;
  uint64_t used = 0;
  absl::int128 spared = -absl::int128(budget.setup_bytes);
  absl::int128 most = 0;
  for (size_t k = 0; k < order.size(); ++k) {
    const uint32_t i = order[k];
    if (floors[i] > budget.bytes_max - used) break;
    used += floors[i];
    const uint64_t left = budget.bytes_max - used;
    if (!budget.bytes_per_token_max) {
      best = {k + 1, left};
      continue;
    }
    spared += ToBytes(chunks[i].tokens * *budget.bytes_per_token_max);
    spared -= floors[i];
    if (spared < most) continue;
    most = spared;
    best = {k + 1, spared < left ? static_cast<uint64_t>(spared) : left};
  }
  return best;
}

std::vector<Step> StepsOf(absl::Span<const Ladder> chunks,
                          const LevelPlan& plan) {
  std::vector<Step> steps;
  std::vector<Point> points;
  std::vector<Point> hull;
  for (uint32_t i = 0; i < chunks.size(); ++i) {
    if (plan.chunks[i].recompute) continue;
    for (size_t layer = 0; layer < LayersOf(chunks[i]); ++layer) {
      HullOf(chunks[i], layer, points, hull);
      for (size_t at = 1; at < hull.size(); ++at) {
        const Point& from = hull[at - 1];
        const Point& to = hull[at];
        steps.push_back({ValueOf(from, to), to.bytes - from.bytes, i,
                         static_cast<uint16_t>(layer), from.rung, to.rung});
      }
    }
  }
  return steps;
}

// Takes the steps that fit, best first. A step that does not fit is passed
// over, and so are the steps that build on it; the room is then used for steps
// of less value. A larger budget still never gives a worse plan: at the first
// step where two budgets differ, the larger budget gains at least as much as
// all the room of the smaller budget can gain from there on.
void Climb(std::vector<Step> steps, uint64_t room, LevelPlan& plan) {
  uint64_t all = 0;
  for (const Step& step : steps) all = Add(all, step.bytes);
  if (all > room) std::sort(steps.begin(), steps.end());
  for (const Step& step : steps) {
    uint8_t& rung = plan.chunks[step.chunk].rung_of_layer[step.layer];
    if (rung != step.from || step.bytes > room) continue;
    room -= step.bytes;
    rung = step.to;
  }
  plan.steps_weighed = static_cast<int64_t>(steps.size());
}

// Sums in the order of chunks and layers, so that the sums do not depend on the
// order of the steps.
void SumUp(absl::Span<const Ladder> chunks, LevelPlan& plan) {
  for (size_t i = 0; i < chunks.size(); ++i) {
    const ChunkPlan& chunk = plan.chunks[i];
    if (chunk.recompute) {
      plan.tokens_recomputed += chunks[i].tokens;
      continue;
    }
    ++plan.chunks_loaded;
    plan.tokens_loaded += chunks[i].tokens;
    plan.bytes = Add(plan.bytes, chunks[i].fixed_bytes);
    for (size_t layer = 0; layer < chunk.rung_of_layer.size(); ++layer) {
      const Point at = PointOf(chunks[i], chunk.rung_of_layer[layer], layer);
      plan.bytes = Add(plan.bytes, at.bytes);
      plan.distortion += at.distortion;
    }
  }
}

}  // namespace

SendBudget BudgetFor(const DeliveryTarget& target) {
  const absl::Duration time = target.deadline - target.now - target.latency;
  if (time <= absl::ZeroDuration()) return {};
  SendBudget budget{.bytes_max = kNoLimit,
                    .too_slow = target.too_slow,
                    .reuse = target.reuse};
  if (!target.bytes_per_second) return budget;
  const double rate = *target.bytes_per_second * kRateSafety;
  budget.bytes_max = ToBytes(rate * absl::ToDoubleSeconds(time));
  budget.setup_bytes = ToBytes(rate * absl::ToDoubleSeconds(target.latency));
  if (target.prefill_tokens_per_second > 0) {
    budget.bytes_per_token_max = rate / target.prefill_tokens_per_second;
  }
  return budget;
}

SendBudget ShareOf(SendBudget budget, size_t part, size_t all) {
  if (budget.bytes_max != kNoLimit && part < all) {
    budget.bytes_max = budget.bytes_max / all * part;
  }
  return budget;
}

LevelPlan PlanLevels(absl::Span<const Ladder> chunks,
                     const SendBudget& budget) {
  LevelPlan plan;
  plan.chunks.resize(chunks.size());
  if (budget.bytes_max > 0) {
    const std::vector<uint64_t> floors = FloorsOf(chunks);
    const std::vector<uint32_t> order = LoadOrder(chunks, floors, budget.reuse);
    const Choice choice = ChooseLoaded(chunks, floors, order, budget);
    for (size_t k = 0; k < choice.count; ++k) {
      const Ladder& chunk = chunks[order[k]];
      ChunkPlan& planned = plan.chunks[order[k]];
      planned.recompute = false;
      for (size_t layer = 0; layer < LayersOf(chunk); ++layer) {
        planned.rung_of_layer.push_back(CheapestOf(chunk, layer).rung);
      }
    }
    Climb(StepsOf(chunks, plan), choice.room, plan);
  }
  SumUp(chunks, plan);
  return plan;
}

}  // namespace kdn::delivery
