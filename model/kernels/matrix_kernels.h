#ifndef KDN_MODEL_KERNELS_MATRIX_KERNELS_H_
#define KDN_MODEL_KERNELS_MATRIX_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "kv/isa.h"

// The loops of the forward pass, compiled for each instruction set.
//
// Every element of a result is computed from its own row alone, by operations
// in an order that depends on nothing else. So a row has the same bits however
// many rows a call has, which thread computes it, and in which call it comes.
// Different instruction sets may give different bits.
namespace kdn::model {

// How the operands of a matrix product are kept. Products are summed in fp32.
enum class Operand : uint8_t {
  kBf16,     // bf16; needs a CPU with AVX-512 BF16
  kRounded,  // rounded to bf16, kept as fp32: the same values for other CPUs
  kFp32,
};
constexpr size_t SizeOf(Operand operand) {
  return operand == Operand::kBf16 ? 2 : 4;
}

// The columns of the right operand that one call of a kernel multiplies by.
inline constexpr int kPanelColumns = 64;
// The inner dimension of a product is filled up with zeros to a multiple of
// this, because bf16 is multiplied in pairs.
inline constexpr int kInnerStep = 2;
constexpr int PaddedInner(int inner) {
  return (inner + kInnerStep - 1) / kInnerStep * kInnerStep;
}
constexpr int PanelsFor(int columns) {
  return (columns + kPanelColumns - 1) / kPanelColumns;
}
// Bytes of a panel: kPanelColumns columns of `inner` values. A panel of kBf16
// is [inner / 2][kPanelColumns][2]; other panels are [inner][kPanelColumns].
constexpr size_t PanelBytes(Operand operand, int inner) {
  return static_cast<size_t>(PaddedInner(inner)) * kPanelColumns *
         SizeOf(operand);
}
// Writes the column of a panel of kBf16, or of another one, from `inner`
// values.
void ScatterToPanel(const uint16_t* source, int inner, int column,
                    uint16_t* panel);
void ScatterToPanel(const float* source, int inner, int column, float* panel);
// Writes four columns that are next to each other, from `column` on.
void ScatterToPanel(const uint16_t* const (&sources)[4], int inner, int column,
                    uint16_t* panel);

// c = a * panel, or with `adds` c += a * panel. `stride`s are from row to row,
// in values.
struct Product {
  const void* a = nullptr;  // [rows][inner]
  size_t a_stride = 0;
  const void* panel = nullptr;
  int inner = 0;       // REQUIRES: PaddedInner(inner) values in each row of `a`
  float* c = nullptr;  // [rows][kPanelColumns]
  size_t c_stride = 0;
  int rows = 0;
  bool adds = false;
};

// A block of scores on the way to attention weights: [rows][kPanelColumns].
struct SoftmaxBlock {
  float* scores = nullptr;
  int rows = 0;
  float scale = 1.0f;
  // The tokens that each row may attend to, one bit for each column.
  const uint64_t* allowed = nullptr;
  // Of each row, over the blocks so far: the largest scaled score, and the sum
  // of the exponentials above it.
  float* most = nullptr;
  float* sums = nullptr;
  // The weights of this block, as an operand: [rows][kPanelColumns].
  void* weights = nullptr;
  // The sums of values so far, which are rescaled: [rows][width].
  float* values = nullptr;
  size_t width = 0;
};

struct MatrixKernels {
  void (*multiply_fp32)(const Product& product);
  // out = x / rms(x) * weight.
  void (*rms_norm)(const float* x, const float* weight, size_t width,
                   float epsilon, float* out);
  // out = gate * sigmoid(gate) * up. `count` is a multiple of 16.
  void (*swiglu)(const float* gate, const float* up, size_t count, float* out);
  // sum += term.
  void (*add)(const float* term, size_t count, float* sum);
  // Rotates pairs (i, i + pairs), as RopeTable::Rotate does.
  void (*rotate_halves)(const float* cos, const float* sin, size_t pairs,
                        float* head);
  void (*to_bf16)(const float* source, size_t count, uint16_t* out);
  void (*round_to_bf16)(const float* source, size_t count, float* out);
  // out = even[0], odd[0], even[1], odd[1], ...
  void (*interleave)(const uint16_t* even, const uint16_t* odd, size_t count,
                     uint16_t* out);
  // Replaces scores by attention weights; `operand` is that of the weights.
  // A row that may attend to no token of the block stays as it is.
  void (*softmax)(const SoftmaxBlock& block, Operand operand);
  // Adds exp(score * scale - most) / sum of the allowed tokens of every row to
  // mass, [kPanelColumns]. Rows with a sum of zero add nothing.
  void (*add_mass)(const SoftmaxBlock& block, float* mass);
};

// Whether this process multiplies bf16 directly: KDN_ISA allows it, and the CPU
// has AVX-512 BF16.
bool MultipliesBf16();
// REQUIRES: Supports(isa).
const MatrixKernels& MatrixKernelsOf(Isa isa);
// The kernels that this process uses: MatrixKernelsOf(BestIsa()).
const MatrixKernels& ResolvedMatrixKernels();

// The operand for values that are rounded to bf16, on this CPU.
Operand Bf16Operand();
// Converts floats to an operand.
void ToOperand(Operand operand, const float* source, int count, void* out);
// Calls the kernel for the operand.
void Multiply(Operand operand, const Product& product);

}  // namespace kdn::model

#endif  // KDN_MODEL_KERNELS_MATRIX_KERNELS_H_
