#ifndef KDN_MODEL_OPERAND_ROWS_H_
#define KDN_MODEL_OPERAND_ROWS_H_

#include <cstddef>
#include <cstring>

#include "kv/line_vector.h"
#include "model/kernels/matrix_kernels.h"

namespace kdn::model {

// Rows of one operand of matrix products: [rows][stride], where a row's values
// behind its width are zeros. Keeps its memory when it shrinks.
class OperandRows {
 public:
  // The values are undefined afterwards, except the zeros behind each row.
  void Resize(Operand operand, int rows, int width) {
    operand_ = operand;
    width_ = width;
    const size_t bytes = rows * row_bytes();
    if (memory_.size() < bytes) memory_.resize(bytes);
    if (stride() == static_cast<size_t>(width)) return;
    for (int row = 0; row < rows; ++row) {
      std::memset(At(row, width), 0, row_bytes() - width * SizeOf(operand));
    }
  }

  Operand operand() const { return operand_; }
  int width() const { return width_; }
  // In values.
  size_t stride() const { return static_cast<size_t>(PaddedInner(width_)); }
  void* At(int row, int column = 0) {
    return memory_.data() + row * row_bytes() + column * SizeOf(operand_);
  }
  const void* At(int row, int column = 0) const {
    return memory_.data() + row * row_bytes() + column * SizeOf(operand_);
  }
  // Converts `count` floats into a row, from `column` on.
  void Write(int row, int column, const float* source, int count) {
    ToOperand(operand_, source, count, At(row, column));
  }

 private:
  size_t row_bytes() const { return stride() * SizeOf(operand_); }

  Operand operand_ = Operand::kFp32;
  int width_ = 0;
  LineVector<std::byte> memory_;
};

}  // namespace kdn::model

#endif  // KDN_MODEL_OPERAND_ROWS_H_
