#include "delivery/fetch_plan.h"

#include <algorithm>

#include "codec/format/stream_layout.h"
#include "kv/check.h"

namespace kdn::delivery {
namespace {

// The mean square error of a layer. Every stream has the same weight.
double LayerError(const codec::ObjectIndex& object, const KvSlice& slice,
                  Level level, int layer) {
  double squares = 0;
  int streams = 0;
  for (const codec::StreamId& id :
       codec::StreamsOf(codec::GridOf(object.header()), {layer, level},
                        slice.head_begin, slice.head_end)) {
    const double rms = object.Entry(id).error_rms;
    squares += rms * rms;
    ++streams;
  }
  return streams == 0 ? 0 : squares / streams;
}

}  // namespace

Ladder LadderOf(const codec::ObjectIndex& object, const KvSlice& slice,
                LevelSet levels) {
  Ladder ladder;
  ladder.tokens = object.header().shape.tokens;
  ladder.fixed_bytes = object.prefix_bytes();
  std::vector<double> worst(slice.layers(), 0.0);
  for (const Level level : kLevelsByQuality) {
    if (!levels.Has(level)) continue;
    Rung rung{.level = level};
    for (int layer = 0; layer < slice.layers(); ++layer) {
      const int of_object = slice.layer_begin + layer;
      rung.layer_bytes.push_back(object.LayerBytes(
          level, of_object, slice.head_begin, slice.head_end));
      rung.layer_distortion.push_back(
          LayerError(object, slice, level, of_object));
      worst[layer] = std::max(worst[layer], rung.layer_distortion.back());
    }
    ladder.rungs.push_back(std::move(rung));
  }
  for (Rung& rung : ladder.rungs) {
    for (int layer = 0; layer < slice.layers(); ++layer) {
      if (worst[layer] == 0) continue;
      rung.layer_distortion[layer] *= ladder.tokens / worst[layer];
    }
  }
  return ladder;
}

FetchPlan::FetchPlan(const KvSlice& slice, LevelSet accept,
                     const SendBudget& budget, size_t chunks)
    : slice_(slice), accept_(accept), left_(budget), chunks_left_(chunks) {}

std::vector<std::vector<Level>> FetchPlan::LevelsOf(
    absl::Span<const codec::ObjectIndex* const> objects, size_t others) {
  const size_t together = objects.size() + others;
  KDN_CHECK(together <= chunks_left_, "a fetch has fewer chunks than it sends");
  std::vector<std::vector<Level>> levels(objects.size());
  if (left_.unlimited()) {
    for (size_t i = 0; i < objects.size(); ++i) {
      levels[i].assign(slice_.layers(),
                       (objects[i]->header().levels & accept_).Best());
    }
    return levels;
  }
  std::vector<Ladder> ladders;
  for (const codec::ObjectIndex* object : objects) {
    ladders.push_back(
        LadderOf(*object, slice_,
                 (object->header().levels & accept_).Without(left_.too_slow)));
  }
  const SendBudget share = ShareOf(left_, together, chunks_left_);
  chunks_left_ -= together;
  const LevelPlan plan = PlanLevels(ladders, share);
  for (size_t i = 0; i < objects.size(); ++i) {
    for (const uint8_t rung : plan.chunks[i].rung_of_layer) {
      levels[i].push_back(ladders[i].rungs[rung].level);
    }
  }
  if (left_.bytes_max != SendBudget::kNoLimit) {
    left_.bytes_max -= std::min(left_.bytes_max, plan.bytes);
  }
  if (plan.chunks_loaded > 0) left_.setup_bytes = 0;
  return levels;
}

}  // namespace kdn::delivery
