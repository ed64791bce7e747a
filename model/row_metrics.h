#ifndef KDN_MODEL_ROW_METRICS_H_
#define KDN_MODEL_ROW_METRICS_H_

#include <vector>

#include "absl/types/span.h"
#include "model/forward_pass.h"
#include "model/llama.h"

namespace kdn::model {

// What an error in a K or V row does to attention, to second order: the
// attention changes by e' M e on average when a row changes by e. One matrix M
// for each layer, K or V, and KV head; the row of K is taken before RoPE.
//
// K: attention reads a row through the products with queries. M is the mean of
// q q' over the queries of the heads that read the row, turned by the distances
// at which they read it. V: a row passes through the output matrix W of these
// heads. M is the sum of W' W.
//
// Watches passes and gathers the moments of their queries. Thread-compatible.
class RowMetrics final : public PassObserver {
 public:
  // The model must outlive this object.
  explicit RowMetrics(const Llama& llama);

  bool WantsQueries(int /*layer*/) const override { return true; }
  void OnQueries(int layer, absl::Span<const float> rows,
                 size_t stride) override;

  // M, [head_dim][head_dim]. REQUIRES: a pass has run the layer.
  std::vector<double> OfK(int layer, int kv_head) const;
  std::vector<double> OfV(int layer, int kv_head) const;

 private:
  struct Moments {
    std::vector<double> sum;  // of q q', [head_dim][head_dim]
    double queries = 0;
  };

  const Llama& llama_;
  int heads_per_kv_head_;
  size_t head_dim_;
  std::vector<Moments> moments_;  // [layer][KV head]
};

}  // namespace kdn::model

#endif  // KDN_MODEL_ROW_METRICS_H_
