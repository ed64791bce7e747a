#ifndef KDN_MODEL_LINEAR_H_
#define KDN_MODEL_LINEAR_H_

#include <memory>
#include <vector>

#include "absl/types/span.h"

namespace kdn::model {

enum class Compute { kFp32, kBf16 };

// y = x W^T + b, computed by oneDNN. W is [outputs, inputs], as in checkpoints.
// With kBf16, weights and inputs are rounded to bf16, and products are summed
// in fp32 (with AMX if the CPU has it). On a CPU for which oneDNN has no bf16,
// the rounded values are multiplied in fp32, which is slower and takes twice
// the memory. Owns a copy of the weights. Thread-safe.
class Linear {
 public:
  // REQUIRES: weights.size() == outputs * inputs; bias is empty or has
  // `outputs` elements.
  Linear(std::vector<float> weights, std::vector<float> bias, int outputs,
         int inputs, Compute compute);
  ~Linear();
  Linear(Linear&&) noexcept;
  Linear& operator=(Linear&&) noexcept;

  // `x` is [rows, inputs], the result [rows, outputs]. Equal calls give equal
  // bits. The number of rows may change the last bits of a row's result,
  // because oneDNN chooses its kernel by that number.
  std::vector<float> Apply(absl::Span<const float> x, int rows) const;

  int inputs() const { return inputs_; }
  int outputs() const { return outputs_; }

 private:
  struct Impl;
  int outputs_;
  int inputs_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kdn::model

#endif  // KDN_MODEL_LINEAR_H_
