#ifndef KDN_BENCH_GEMM_LIMIT_H_
#define KDN_BENCH_GEMM_LIMIT_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "model/config.h"

namespace kdn::bench {

// oneDNN's products of matrices of a model's shapes, with weights in the layout
// that oneDNN prefers: the limit of a prefill that uses oneDNN. In bf16, or in
// fp32 on a CPU for which oneDNN has no bf16.
class GemmLimit {
 public:
  // UNAVAILABLE, with oneDNN's reason, when it has no kernel.
  static absl::StatusOr<GemmLimit> Create(const model::ModelConfig& config,
                                          int rows);
  GemmLimit(GemmLimit&&) noexcept;
  GemmLimit& operator=(GemmLimit&&) noexcept;
  ~GemmLimit();

  const std::string& dtype() const;
  // Multiplies every matrix of a layer once, with all rows, and returns the
  // floating-point operations per second.
  double Measure();

 private:
  struct Impl;
  explicit GemmLimit(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kdn::bench

#endif  // KDN_BENCH_GEMM_LIMIT_H_
