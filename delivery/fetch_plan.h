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

// At which levels a node sends the chunks of one fetch: whoever holds the
// objects knows their indexes, and plans within the budget that came with the
// request. Pure; thread-compatible.
class FetchPlan {
 public:
  // Of a fetch of so many chunks.
  FetchPlan(const KvSlice& slice, LevelSet accept, const SendBudget& budget,
            size_t chunks);

  // The levels of each layer of the slice, by chunk; none at all: it is not
  // sent, recomputing it is faster or all that there is time for. The chunks go
  // out together, and `others` with them, of which there is nothing to send;
  // they get their share of what is left of the budget. REQUIRES: the objects
  // have the slice and an accepted level each.
  std::vector<std::vector<Level>> LevelsOf(
      absl::Span<const codec::ObjectIndex* const> objects, size_t others);

 private:
  const KvSlice slice_;
  const LevelSet accept_;
  SendBudget left_;
  size_t chunks_left_;
};

// What delivering a slice of an object at each of `levels` takes and loses. A
// layer's loss counts in units of what its least exact level loses, a token
// each: an index tells errors, not what they cost the model.
Ladder LadderOf(const codec::ObjectIndex& object, const KvSlice& slice,
                LevelSet levels);

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_FETCH_PLAN_H_
