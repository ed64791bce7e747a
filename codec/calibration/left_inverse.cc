#include "codec/calibration/left_inverse.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
#include <utility>

namespace kdn::codec {
namespace {

// The least ratio of the smallest pivot to the largest. Below it the columns
// count as linearly dependent: their inverse would magnify rounding errors a
// million times.
constexpr double kConditionMin = 1e-6;

// A square matrix of doubles.
class Square {
 public:
  explicit Square(size_t size) : size_(size), values_(size * size) {}
  size_t size() const { return size_; }
  double& at(size_t row, size_t column) {
    return values_[row * size_ + column];
  }
  double at(size_t row, size_t column) const {
    return values_[row * size_ + column];
  }

 private:
  size_t size_;
  std::vector<double> values_;
};

// The columns of a matrix [rows][columns] that are not all zeros.
std::vector<int> UsedColumns(absl::Span<const int8_t> matrix, int rows,
                             int columns) {
  std::vector<int> used;
  for (int c = 0; c < columns; ++c) {
    bool zero = true;
    for (int r = 0; r < rows && zero; ++r) {
      zero = matrix[static_cast<size_t>(r) * columns + c] == 0;
    }
    if (!zero) used.push_back(c);
  }
  return used;
}

// Factorises `gram` into L D L^T, where L has ones on its diagonal. The result
// has D on its diagonal and L below it. Nullopt when the pivots in D differ too
// much.
std::optional<Square> Factorise(Square gram) {
  const size_t n = gram.size();
  double least = INFINITY;
  double most = 0;
  for (size_t j = 0; j < n; ++j) {
    for (size_t k = 0; k < j; ++k) {
      const double factor = gram.at(j, k) * gram.at(k, k);
      for (size_t i = j; i < n; ++i) gram.at(i, j) -= gram.at(i, k) * factor;
    }
    const double pivot = gram.at(j, j);
    least = std::min(least, pivot);
    most = std::max(most, pivot);
    if (!(least > kConditionMin * most)) return std::nullopt;
    for (size_t i = j + 1; i < n; ++i) gram.at(i, j) /= pivot;
  }
  return gram;
}

// Replaces x by the y with (L D L^T) y = x.
void Solve(const Square& factors, std::vector<double>& x) {
  const size_t n = factors.size();
  for (size_t i = 0; i < n; ++i) {
    for (size_t k = 0; k < i; ++k) x[i] -= factors.at(i, k) * x[k];
  }
  for (size_t i = 0; i < n; ++i) x[i] /= factors.at(i, i);
  for (size_t i = n; i-- > 0;) {
    for (size_t k = i + 1; k < n; ++k) x[i] -= factors.at(k, i) * x[k];
  }
}

}  // namespace

// By the normal equations: (M^T M)^-1 M^T.
absl::StatusOr<std::vector<float>> LeftInverse(absl::Span<const int8_t> matrix,
                                               int rows, int columns,
                                               double scale) {
  const std::vector<int> used = UsedColumns(matrix, rows, columns);
  const auto entry = [&](int r, size_t i) {
    return scale * matrix[static_cast<size_t>(r) * columns + used[i]];
  };
  Square gram(used.size());
  for (size_t i = 0; i < used.size(); ++i) {
    for (size_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (int r = 0; r < rows; ++r) sum += entry(r, i) * entry(r, j);
      gram.at(i, j) = sum;
    }
  }
  const std::optional<Square> factors = Factorise(std::move(gram));
  if (!factors) {
    return absl::InvalidArgumentError(
        "the columns of a synthesis are linearly dependent: it has no inverse");
  }
  std::vector<float> inverse(static_cast<size_t>(columns) * rows, 0.0f);
  std::vector<double> column(used.size());
  for (int r = 0; r < rows; ++r) {
    for (size_t i = 0; i < used.size(); ++i) column[i] = entry(r, i);
    Solve(*factors, column);
    for (size_t i = 0; i < used.size(); ++i) {
      inverse[static_cast<size_t>(used[i]) * rows + r] =
          static_cast<float>(column[i]);
    }
  }
  return inverse;
}

}  // namespace kdn::codec
