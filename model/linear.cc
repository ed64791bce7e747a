#include "model/linear.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "kv/check.h"
#include "model/parallel.h"

namespace kdn::model {
namespace {

// The rows of one task: with 1,536 inputs in bf16 they and a panel take 0.6 MB,
// which an L2 cache of 1 MB holds.
constexpr int kTaskRows = 128;
// Fewer multiplications than this take less time than waking threads.
constexpr size_t kWideProducts = 1 << 16;
// The rows that are computed at once of a panel that has fewer outputs.
constexpr int kNarrowRows = 16;

}  // namespace

Operand OperandOf(Compute compute) {
  return compute == Compute::kFp32 ? Operand::kFp32 : Bf16Operand();
}

Linear::Linear(absl::Span<const float> weights, std::vector<float> bias,
               int outputs, int inputs, Compute compute, HugeMemory& memory)
    : Linear(outputs, inputs, OperandOf(compute), memory) {
  bias_ = std::move(bias);
  KDN_CHECK(weights.size() == static_cast<size_t>(outputs) * inputs,
            "weights have the size of their shape");
  KDN_CHECK(bias_.empty() || bias_.size() == static_cast<size_t>(outputs),
            "a bias has one element per output");
  ParallelFor(panels(), true, Tasks::kAny,
              [&](int panel, int) { Pack(weights, panel); });
}

Linear::Linear(int outputs, int inputs, Operand operand, HugeMemory& memory)
    : outputs_(outputs),
      inputs_(inputs),
      operand_(operand),
      panels_(
          memory.Allocate(PanelsFor(outputs) * PanelBytes(operand, inputs))) {}

void Linear::Unpack(int panel, float* weights) const {
  const std::byte* from = panels_ + panel * PanelBytes(operand_, inputs_);
  for (int i = 0; i < inputs_; ++i) {
    float* const row = weights + static_cast<size_t>(i) * kPanelColumns;
    if (operand_ != Operand::kBf16) {
      std::memcpy(row, from + static_cast<size_t>(i) * kPanelColumns * 4,
                  kPanelColumns * 4);
      continue;
    }
    // Two inputs lie side by side.
    const auto* pairs = reinterpret_cast<const uint16_t*>(from) +
                        static_cast<size_t>(i / 2) * 2 * kPanelColumns + i % 2;
    for (int column = 0; column < kPanelColumns; ++column) {
      row[column] = std::bit_cast<float>(
          static_cast<uint32_t>(pairs[static_cast<size_t>(2 * column)]) << 16);
    }
  }
}

Linear Linear::Transposed(HugeMemory& memory) const {
  Linear transposed(inputs_, outputs_, operand_, memory);
  std::vector<float> weights(static_cast<size_t>(inputs_) * outputs_);
  ParallelFor(panels(), true, Tasks::kAny, [&](int panel, int) {
    std::vector<float> part(static_cast<size_t>(inputs_) * kPanelColumns);
    Unpack(panel, part.data());
    const int first = panel * kPanelColumns;
    const int columns = std::min(kPanelColumns, outputs_ - first);
    for (int i = 0; i < inputs_; ++i) {
      std::copy_n(&part[static_cast<size_t>(i) * kPanelColumns], columns,
                  &weights[static_cast<size_t>(i) * outputs_ + first]);
    }
  });
  ParallelFor(transposed.panels(), true, Tasks::kAny,
              [&](int panel, int) { transposed.Pack(weights, panel); });
  return transposed;
}

void Linear::Pack(absl::Span<const float> weights, int panel) {
  const size_t bytes = PanelBytes(operand_, inputs_);
  std::byte* const out = panels_ + panel * bytes;
  std::memset(out, 0, bytes);
  std::vector<float> row(static_cast<size_t>(inputs_));
  const int first = panel * kPanelColumns;
  const int columns = std::min(kPanelColumns, outputs_ - first);
  for (int column = 0; column < columns; ++column) {
    ToOperand(operand_, &weights[static_cast<size_t>(first + column) * inputs_],
              inputs_, row.data());
    if (operand_ == Operand::kBf16) {
      ScatterToPanel(reinterpret_cast<const uint16_t*>(row.data()), inputs_,
                     column, reinterpret_cast<uint16_t*>(out));
    } else {
      ScatterToPanel(row.data(), inputs_, column,
                     reinterpret_cast<float*>(out));
    }
  }
}

// The tasks of a panel follow each other, so that a panel comes from memory
// once: 3 % faster with 512 rows than panels within rows.
void Linear::Apply(const OperandRows& x, int rows, bool adds, float* y) const {
  const int blocks = (rows + kTaskRows - 1) / kTaskRows;
  const size_t products = static_cast<size_t>(rows) * inputs_ * outputs_;
  ParallelFor(blocks * panels(), products >= kWideProducts,
              blocks == 1 ? Tasks::kRange : Tasks::kAny, [&](int task, int) {
                const int begin = task % blocks * kTaskRows;
                const int end = std::min(rows, begin + kTaskRows);
                const int panel = task / blocks;
                float* const at = y + static_cast<size_t>(begin) * outputs_ +
                                  panel * kPanelColumns;
                ApplyPanel(x, begin, end, panel, adds, at,
                           static_cast<size_t>(outputs_));
              });
}

void Linear::ApplyPanel(const OperandRows& x, int begin, int end, int panel,
                        bool adds, float* y, size_t y_stride) const {
  KDN_CHECK(x.operand() == operand_ && x.width() == inputs_,
            "the input has the layer's operand and width");
  Product product;
  product.a_stride = x.stride();
  product.panel = panels_ + panel * PanelBytes(operand_, inputs_);
  product.inner = inputs_;
  const int first = panel * kPanelColumns;
  const int columns = std::min(kPanelColumns, outputs_ - first);
  const float* bias = bias_.empty() ? nullptr : &bias_[first];
  if (columns == kPanelColumns && bias == nullptr) {
    product.a = x.At(begin);
    product.c = y;
    product.c_stride = y_stride;
    product.rows = end - begin;
    product.adds = adds;
    Multiply(operand_, product);
    return;
  }
  alignas(64) float tile[kNarrowRows * kPanelColumns];
  product.c = tile;
  product.c_stride = kPanelColumns;
  for (int row = begin; row < end; row += kNarrowRows) {
    product.a = x.At(row);
    product.rows = std::min(kNarrowRows, end - row);
    Multiply(operand_, product);
    for (int i = 0; i < product.rows; ++i) {
      const float* sums = tile + i * kPanelColumns;
      float* out = y + static_cast<size_t>(row - begin + i) * y_stride;
      for (int j = 0; j < columns; ++j) {
        const float value = bias == nullptr ? sums[j] : sums[j] + bias[j];
        out[j] = adds ? out[j] + value : value;
      }
    }
  }
}

}  // namespace kdn::model
