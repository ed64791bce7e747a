#include "codec/calibration/eigenpairs.h"

#include <Eigen/Core>
#include <Eigen/Eigenvalues>

#include "kv/check.h"

namespace kdn::codec {
namespace {

using Matrix =
    Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

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

}  // namespace kdn::codec
