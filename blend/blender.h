#ifndef KDN_BLEND_BLENDER_H_
#define KDN_BLEND_BLENDER_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "blend/composition.h"
#include "blend/selection.h"
#include "model/forward_pass.h"
#include "model/kv_cache.h"
#include "model/llama.h"

namespace kdn::blend {

// What a model predicts behind a query, and what the query attends to.
struct QueryAnswer {
  std::vector<float> logits;  // of the query's last token
  // Of each token of the cache: the attention that the query's tokens pay to
  // it, summed over tokens, heads and layers. Empty unless asked for.
  std::vector<float> attention;
  double flops = 0;
};

// What a blend has done to a cache.
struct Blended {
  std::vector<int> rows;  // the tokens that were computed anew, ascending
  // The check layer, or 0. In the layers below it, all candidates were
  // computed; in it, the KV of all candidates was written.
  int first_layer = 0;
  double flops = 0;
};

// Corrects the KV of texts that was computed apart: chooses some tokens and
// computes their KV anew. Each of these tokens sees exactly the tokens up to
// its own position: the new KV of chosen tokens, and the reused KV of others. A
// selection with a check layer replaces the KV of all candidates up to that
// layer. With a ratio of 1, the cache gets the bits of a prefill of the whole
// composition behind its exact parts. Thread-confined; passes use all cores.
class Blender {
 public:
  // `llama` must outlive the blender.
  explicit Blender(const model::Llama& llama) : llama_(llama) {}

  // Runs the query behind the tokens of the cache, which is unchanged
  // afterwards. Errors are those of model::CheckSequences, among them
  // RESOURCE_EXHAUSTED when the cache has no room for the query.
  absl::StatusOr<QueryAnswer> Ask(model::KvCache& cache,
                                  absl::Span<const int32_t> query,
                                  bool wants_attention = false);

  // Computes anew the KV of the tokens that `selection` chooses: `ratio` of the
  // tokens behind the prefix, but none that is exact. The cache holds the
  // reused KV of all tokens, at their final positions. `attention` is Ask's
  // over this cache; a selection that does not want it ignores it.
  // INVALID_ARGUMENT for a composition that is not valid, a cache of other
  // tokens, a ratio outside [0, 1], a check layer that the model does not have,
  // or no attention where the selection wants it; the cache is unchanged then.
  absl::StatusOr<Blended> Blend(const Composition& composition,
                                model::KvCache& cache,
                                absl::Span<const float> attention,
                                const Selection& selection, double ratio);

 private:
  absl::Status Check(const Composition& composition,
                     const model::KvCache& cache,
                     absl::Span<const float> attention,
                     const Selection& selection, double ratio) const;
  absl::StatusOr<Blended> Recompute(const Composition& composition,
                                    model::KvCache& cache,
                                    absl::Span<const float> attention,
                                    const Selection& selection, int count);

  const model::Llama& llama_;
  model::Workspace workspace_;
};

}  // namespace kdn::blend

#endif  // KDN_BLEND_BLENDER_H_
