#ifndef KDN_BLEND_SELECTION_H_
#define KDN_BLEND_SELECTION_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "blend/composition.h"

namespace kdn::blend {

// What a selection may look at.
struct Evidence {
  const Composition& composition;
  // The tokens that may be chosen, ascending: all that are not exact.
  absl::Span<const int> candidates;
  // Of each token of the composition: the attention that the query pays to it
  // over the reused KV, summed over query tokens, heads and layers. May be
  // empty if the selection does not want it.
  absl::Span<const float> attention;
  // Of each candidate: the squared distance between the reused and the computed
  // K and V of the check layer, over the mean squared length of the computed
  // ones. Empty unless the selection has a check layer.
  absl::Span<const float> k_deviation;
  absl::Span<const float> v_deviation;
};

// A rule that chooses the tokens whose KV is computed anew. Immutable.
class Selection {
 public:
  virtual ~Selection() = default;
  virtual std::string name() const = 0;
  virtual bool WantsAttention() const { return false; }
  // The layer whose KV is computed for all candidates, to compare it with the
  // reused KV. The layers below are computed for all candidates, too. Negative:
  // none.
  virtual int check_layer() const { return -1; }
  // A score for each candidate. Those with the highest are chosen; of equal
  // scores, the first.
  virtual std::vector<float> Score(const Evidence& evidence) const = 0;
};

// The `count` candidates with the highest scores, ascending.
// REQUIRES: one score for each candidate.
std::vector<int> Highest(absl::Span<const int> candidates,
                         absl::Span<const float> scores, int count);

// Any tokens: what a rule must beat. Equal seeds give equal choices.
std::unique_ptr<Selection> RandomTokens(uint64_t seed);
// The first tokens of each part (EPIC, Hu et al., ICML 2025, section 4).
std::unique_ptr<Selection> PartHeads();
// The tokens at both ends of each part.
std::unique_ptr<Selection> PartEnds();
// The tokens whose KV deviates most at a layer (CacheBlend, Yao et al., EuroSys
// 2025, section 4.2).
std::unique_ptr<Selection> KvDeviation(int check_layer);
// The tokens to which the query attends most (ProphetKV, 2026).
std::unique_ptr<Selection> QueryAttention();
// The attention of the query times the deviation of V at a layer.
std::unique_ptr<Selection> AttentionTimesDeviation(int check_layer);
// Whole parts, in the order of the query's mean attention to their tokens.
std::unique_ptr<Selection> AttendedParts();

}  // namespace kdn::blend

#endif  // KDN_BLEND_SELECTION_H_
