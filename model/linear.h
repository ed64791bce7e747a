#ifndef KDN_MODEL_LINEAR_H_
#define KDN_MODEL_LINEAR_H_

#include <cstddef>
#include <vector>

#include "absl/types/span.h"
#include "model/huge_memory.h"
#include "model/kernels/matrix_kernels.h"
#include "model/operand_rows.h"

namespace kdn::model {

enum class Compute { kFp32, kBf16 };

// The operand that matrix products of this kind multiply, on this CPU.
Operand OperandOf(Compute compute);

// y = x W^T + b. W is [outputs, inputs], as in checkpoints. With kBf16, weights
// and inputs are rounded to bf16, and products are summed in fp32. A CPU
// without AVX-512 BF16 multiplies the rounded values in fp32, which is slower
// and takes twice the memory.
//
// Representation: W in panels of kPanelColumns outputs (kernels/), packed once;
// the last panel is filled up with zeros. Each element of y is a sum in the
// order of the inputs, so a row of y has the same bits in every call that has
// the row, on any number of threads. Immutable; thread-safe.
class Linear {
 public:
  // Keeps the weights in `memory`, which must outlive the layer. REQUIRES:
  // weights.size() == outputs * inputs; bias is empty or has `outputs`
  // elements.
  Linear(absl::Span<const float> weights, std::vector<float> bias, int outputs,
         int inputs, Compute compute, HugeMemory& memory);

  int inputs() const { return inputs_; }
  int outputs() const { return outputs_; }
  Operand operand() const { return operand_; }
  int panels() const { return PanelsFor(outputs_); }
  // The weights, as they are kept.
  absl::Span<const std::byte> memory() const {
    return {panels_, panels() * PanelBytes(operand_, inputs_)};
  }

  // The layer without bias that multiplies by W instead of W^T, which
  // backpropagation needs. Its weights are kept in `memory`, too.
  Linear Transposed(HugeMemory& memory) const;

  // Writes y [rows][outputs], or with `adds` adds to it, on all cores.
  // REQUIRES: x has operand() and inputs() values in a row.
  void Apply(const OperandRows& x, int rows, bool adds, float* y) const;
  // The same for rows [begin, end) and the outputs of one panel, on this
  // thread. `y` is where row `begin` has the first of these outputs; it may
  // have any stride.
  void ApplyPanel(const OperandRows& x, int begin, int end, int panel,
                  bool adds, float* y, size_t y_stride) const;

 private:
  Linear(int outputs, int inputs, Operand operand, HugeMemory& memory);
  void Pack(absl::Span<const float> weights, int panel);
  // The weights of outputs [begin, begin + kPanelColumns), [input][output].
  // Outputs behind the last one have zeros.
  void Unpack(int panel, float* weights) const;

  int outputs_;
  int inputs_;
  Operand operand_;
  std::byte* panels_;
  std::vector<float> bias_;
};

}  // namespace kdn::model

#endif  // KDN_MODEL_LINEAR_H_
