#include "codec/calibration/left_inverse.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace kdn::codec {
namespace {

// The least ratio of the smallest pivot to the largest. Below it the columns
// count as linearly dependent: their inverse would magnify rounding errors a
// million times.
constexpr double kConditionMin = 1e-6;

// A matrix of doubles. All loops below run along its rows, so that they are
// vectorised.
class Doubles {
 public:
  Doubles(size_t rows, size_t columns)
      : rows_(rows), columns_(columns), values_(rows * columns) {}
  size_t rows() const { return rows_; }
  size_t columns() const { return columns_; }
  double* Row(size_t row) { return values_.data() + row * columns_; }
  const double* Row(size_t row) const {
    return values_.data() + row * columns_;
  }

 private:
  size_t rows_;
  size_t columns_;
  std::vector<double> values_;
};

// y -= factor * x, for the first `count` elements.
void Subtract(double factor, const double* x, size_t count, double* y) {
  for (size_t i = 0; i < count; ++i) y[i] -= factor * x[i];
}

// The columns of a matrix [rows][columns] that are not all zeros.
std::vector<int> UsedColumns(absl::Span<const int8_t> matrix, int rows,
                             int columns) {
  std::vector<bool> is_used(columns);
  for (int r = 0; r < rows; ++r) {
    const int8_t* const row = &matrix[static_cast<size_t>(r) * columns];
    for (int c = 0; c < columns; ++c) is_used[c] = is_used[c] || row[c] != 0;
  }
  std::vector<int> used;
  for (int c = 0; c < columns; ++c) {
    if (is_used[c]) used.push_back(c);
  }
  return used;
}

// The products of all pairs of rows of `transposed`; [i][j] for j <= i only.
Doubles GramOf(const Doubles& transposed) {
  const size_t n = transposed.rows();
  Doubles gram(n, n);
  std::vector<double> column(n);
  for (size_t r = 0; r < transposed.columns(); ++r) {
    for (size_t i = 0; i < n; ++i) column[i] = transposed.Row(i)[r];
    for (size_t i = 0; i < n; ++i) {
      if (column[i] == 0) continue;
      Subtract(-column[i], column.data(), i + 1, gram.Row(i));
    }
  }
  return gram;
}

// Factorises `gram` into L D L^T, where L has ones on its diagonal. `gram` gets
// D on its diagonal and L below it. False when the pivots in D differ too much.
bool Factorise(Doubles& gram) {
  const size_t n = gram.rows();
  double least = INFINITY;
  double most = 0;
  std::vector<double> column(n);
  for (size_t k = 0; k < n; ++k) {
    const double pivot = gram.Row(k)[k];
    least = std::min(least, pivot);
    most = std::max(most, pivot);
    if (!(least > kConditionMin * most)) return false;
    for (size_t i = k + 1; i < n; ++i) column[i] = gram.Row(i)[k];
    for (size_t i = k + 1; i < n; ++i) {
      gram.Row(i)[k] = column[i] / pivot;
      Subtract(gram.Row(i)[k], &column[k + 1], i - k, gram.Row(i) + k + 1);
    }
  }
  return true;
}

// Replaces x by the y with (L D L^T) y = x, for every column of x.
void Solve(const Doubles& factors, Doubles& x) {
  const size_t n = factors.rows();
  const size_t columns = x.columns();
  for (size_t i = 0; i < n; ++i) {
    for (size_t k = 0; k < i; ++k) {
      Subtract(factors.Row(i)[k], x.Row(k), columns, x.Row(i));
    }
  }
  for (size_t i = n; i-- > 0;) {
    for (size_t c = 0; c < columns; ++c) x.Row(i)[c] /= factors.Row(i)[i];
  }
  for (size_t i = n; i-- > 0;) {
    for (size_t k = 0; k < i; ++k) {
      Subtract(factors.Row(i)[k], x.Row(i), columns, x.Row(k));
    }
  }
}

}  // namespace

// By the normal equations: (M^T M)^-1 M^T.
absl::StatusOr<std::vector<float>> LeftInverse(absl::Span<const int8_t> matrix,
                                               int rows, int columns,
                                               absl::Span<const float> scales) {
  const std::vector<int> used = UsedColumns(matrix, rows, columns);
  Doubles transposed(used.size(), rows);
  for (size_t i = 0; i < used.size(); ++i) {
    for (int r = 0; r < rows; ++r) {
      transposed.Row(i)[r] = matrix[static_cast<size_t>(r) * columns + used[i]];
    }
  }
  Doubles factors = GramOf(transposed);
  if (!Factorise(factors)) {
    return absl::InvalidArgumentError(
        "the columns of a synthesis are linearly dependent: it has no inverse");
  }
  Solve(factors, transposed);
  std::vector<float> inverse(static_cast<size_t>(columns) * rows, 0.0f);
  for (size_t i = 0; i < used.size(); ++i) {
    float* const to = &inverse[static_cast<size_t>(used[i]) * rows];
    for (int r = 0; r < rows; ++r) {
      const double scale = scales[r * scales.size() / rows];
      to[r] = static_cast<float>(transposed.Row(i)[r] / scale);
    }
  }
  return inverse;
}

}  // namespace kdn::codec
