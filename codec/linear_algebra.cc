#include "codec/linear_algebra.h"

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <Eigen/Eigenvalues>

#include "kv/check.h"

namespace kdn::codec {
namespace {

using Matrix =
    Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Below this the columns count as dependent on each other: their inverse would
// magnify rounding a million times.
constexpr double kConditionMin = 1e-6;

}  // namespace

Eigenpairs EigenpairsOf(absl::Span<const double> matrix, int dim) {
  KDN_CHECK(matrix.size() == static_cast<size_t>(dim) * dim, "a square matrix");
  const Eigen::Map<const Matrix> symmetric(matrix.data(), dim, dim);
  const Eigen::SelfAdjointEigenSolver<Matrix> solver(symmetric);
  Eigenpairs pairs;
  pairs.values.resize(dim);
  pairs.vectors.resize(matrix.size());
  for (int i = 0; i < dim; ++i) {
    const int rising = dim - 1 - i;
    pairs.values[i] = solver.eigenvalues()[rising];
    for (int d = 0; d < dim; ++d) {
      pairs.vectors[static_cast<size_t>(d) * dim + i] =
          solver.eigenvectors()(d, rising);
    }
  }
  return pairs;
}

absl::StatusOr<std::vector<float>> LeftInverse(absl::Span<const int8_t> matrix,
                                               int rows, int columns,
                                               double scale) {
  std::vector<int> used;
  for (int c = 0; c < columns; ++c) {
    for (int r = 0; r < rows; ++r) {
      if (matrix[static_cast<size_t>(r) * columns + c] == 0) continue;
      used.push_back(c);
      break;
    }
  }
  Matrix dense(rows, static_cast<int>(used.size()));
  for (int r = 0; r < rows; ++r) {
    for (size_t i = 0; i < used.size(); ++i) {
      dense(r, static_cast<int>(i)) =
          scale * matrix[static_cast<size_t>(r) * columns + used[i]];
    }
  }
  std::vector<float> inverse(static_cast<size_t>(columns) * rows, 0.0f);
  if (used.empty()) return inverse;
  const Matrix gram = dense.transpose() * dense;
  const Eigen::LDLT<Matrix> solver(gram);
  const auto pivots = solver.vectorD().array().abs();
  if (solver.info() != Eigen::Success ||
      !(pivots.minCoeff() > kConditionMin * pivots.maxCoeff())) {
    return absl::InvalidArgumentError(
        "a synthesis whose columns depend on each other cannot be undone");
  }
  const Matrix solved = solver.solve(dense.transpose());
  for (size_t i = 0; i < used.size(); ++i) {
    for (int r = 0; r < rows; ++r) {
      inverse[static_cast<size_t>(used[i]) * rows + r] =
          static_cast<float>(solved(static_cast<int>(i), r));
    }
  }
  return inverse;
}

}  // namespace kdn::codec
