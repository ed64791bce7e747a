#ifndef KDN_BENCH_BLEND_BED_H_
#define KDN_BENCH_BLEND_BED_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "bench/blend_statistics.h"
#include "blend/blender.h"
#include "model/kv_cache.h"
#include "model/llama.h"

namespace kdn::bench {

// What the model reads behind a composition.
struct BlendItem {
  std::vector<int32_t> query;  // what a selection may know
  // Tokens behind the query whose predictions are compared, too.
  std::vector<int32_t> after;
  // Of a question: the tokens that may follow the query, and the right one.
  // Empty: no question.
  std::vector<int32_t> candidates;
  int32_t answer = 0;
};

// Chunks behind a shared prefix, prefilled apart and together, and what a
// model says behind both. Chunks that were prefilled apart go through the
// codec, as objects do, and are decoded at their final positions.
class BlendBed {
 public:
  // Both must outlive the bed.
  BlendBed(const model::Llama& llama, blend::Blender& blender)
      : llama_(llama), blender_(blender) {}

  // Prepares the next composition.
  absl::Status Compose(absl::Span<const int32_t> prefix,
                       absl::Span<const std::vector<int32_t>> chunks,
                       std::vector<BlendItem> items);

  int tokens() const { return static_cast<int>(composition_.tokens.size()); }
  const std::vector<BlendItem>& items() const { return items_; }

  // Of each item.
  absl::StatusOr<std::vector<BlendScore>> FullPrefill();
  // Without any recomputation. `alone`: of chunks that were prefilled without
  // the prefix.
  absl::StatusOr<std::vector<BlendScore>> Reuse(bool alone);
  absl::StatusOr<std::vector<BlendScore>> Blend(
      const blend::Selection& selection, double ratio);
  // A selection that knows the KV of the full prefill, and chooses the tokens
  // whose V deviates most over all layers. For comparison only.
  std::unique_ptr<blend::Selection> Oracle() const;

 private:
  struct Predictions {
    std::vector<float> logits;  // [1 + after][vocab]
    double flops = 0;           // of the query
  };

  model::KvCache NewCache() const;
  // A copy of the first `tokens` tokens.
  model::KvCache CopyOf(const model::KvCache& cache, int tokens) const;
  // Computes the KV of tokens behind those of the cache. Returns the FLOPs.
  absl::StatusOr<double> Prefill(model::KvCache& cache,
                                 absl::Span<const int32_t> tokens);
  // Prefills a chunk behind the first `behind` tokens of the prefix, and
  // delivers it at `at` of `to`.
  absl::Status AddApart(absl::Span<const int32_t> chunk, int behind,
                        model::KvCache& to, int at);
  // Codes the tokens from `begin` on, and decodes them at `at` of `to`.
  absl::Status Deliver(const model::KvCache& from, int begin, int count,
                       model::KvCache& to, int at) const;
  absl::StatusOr<Predictions> Predict(model::KvCache& cache,
                                      const BlendItem& item);
  absl::StatusOr<BlendScore> Score(model::KvCache& cache, size_t item,
                                   double flops);
  absl::StatusOr<std::vector<BlendScore>> ScoreAll(model::KvCache& cache,
                                                   double flops);

  const model::Llama& llama_;
  blend::Blender& blender_;
  blend::Composition composition_;
  std::vector<BlendItem> items_;
  int room_ = 0;  // of a cache, in tokens
  std::unique_ptr<model::KvCache> full_;
  double full_flops_ = 0;  // behind the prefix
  std::unique_ptr<model::KvCache> reused_;
  std::unique_ptr<model::KvCache> alone_;
  std::vector<Predictions> exact_;          // of each item, behind full_
  std::vector<blend::QueryAnswer> before_;  // of each item, behind reused_
};

}  // namespace kdn::bench

#endif  // KDN_BENCH_BLEND_BED_H_
