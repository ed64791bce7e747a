#ifndef KDN_DELIVERY_FETCH_PLAN_H_
#define KDN_DELIVERY_FETCH_PLAN_H_

#include <cstddef>
#include <vector>

#include "absl/types/span.h"
#include "codec/format/object.h"
#include "delivery/rate_control.h"
#include "kv/kv_view.h"
#include "kv/level.h"

namespace kdn::delivery {

// Decides at which levels a node sends the chunks of one fetch. The sending
// node holds the objects and knows their indexes; it plans within the budget
// that came with the request. Pure; thread-compatible.
class FetchPlan {
 public:
  // `chunks`: the number of chunks of the fetch.
  FetchPlan(const KvSlice& slice, LevelSet accept, const SendBudget& budget,
            size_t chunks);

  // By chunk, the level of each layer of the slice. A chunk without levels is
  // not sent: recomputing it is faster, or there is no time to send it.
  // `objects` are the chunks that are sent together next; `others` is the
  // number of chunks of the same group that have nothing to send. The group
  // gets its share of the rest of the budget. REQUIRES: each object has the
  // slice and an accepted level.
  std::vector<std::vector<Level>> LevelsOf(
      absl::Span<const codec::ObjectIndex* const> objects, size_t others);

 private:
  const KvSlice slice_;
  const LevelSet accept_;
  SendBudget left_;
  size_t chunks_left_;
};

// What it costs to deliver a slice of an object at each of `levels`: the bytes
// and the distortion of each layer. The distortion of a layer at its least
// exact level is 1 per token, and that at other levels is relative to it,
// because an index tells the errors but not how much they harm the model.
Ladder LadderOf(const codec::ObjectIndex& object, const KvSlice& slice,
                LevelSet levels);

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_FETCH_PLAN_H_
