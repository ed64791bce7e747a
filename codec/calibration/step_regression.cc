#include "codec/calibration/step_regression.h"

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <cmath>
#include <vector>

namespace kdn::codec {
namespace {

// Added to the diagonal of the normal equations, whose features have the
// variance 1: as much as so many rows without any effect.
constexpr float kRidge = 20.0f;

std::vector<size_t> KnownRows(absl::Span<const float> importance) {
  std::vector<size_t> known;
  for (size_t i = 0; i < importance.size(); ++i) {
    if (!std::isnan(importance[i])) known.push_back(i);
  }
  return known;
}

}  // namespace

StepPredictor FitSteps(absl::Span<const float> rows,
                       absl::Span<const float> mean,
                       absl::Span<const float> importance) {
  const auto dim = static_cast<Eigen::Index>(mean.size());
  StepPredictor predictor;
  predictor.linear.assign(dim, 0.0f);
  predictor.square.assign(dim, 0.0f);
  const std::vector<size_t> known = KnownRows(importance);
  const auto count = static_cast<Eigen::Index>(known.size());
  if (count < FitRowsMin(static_cast<int>(dim))) return predictor;
  // A column for each feature: differences to the mean, then their squares.
  Eigen::MatrixXf features(count, 2 * dim);
  Eigen::VectorXf wanted(count);
  for (Eigen::Index i = 0; i < count; ++i) {
    const float* const row = &rows[known[i] * mean.size()];
    for (Eigen::Index d = 0; d < dim; ++d) {
      const float z = row[d] - mean[d];
      features(i, d) = z;
      features(i, dim + d) = z * z;
    }
    wanted[i] = importance[known[i]];
  }
  const Eigen::RowVectorXf centre = features.colwise().mean();
  features.rowwise() -= centre;
  const Eigen::RowVectorXf scale =
      ((features.colwise().squaredNorm() / static_cast<float>(count))
           .array()
           .sqrt() +
       1e-20f)
          .inverse();
  features = features * scale.asDiagonal();
  wanted.array() -= wanted.mean();
  Eigen::MatrixXf normal = Eigen::MatrixXf::Identity(2 * dim, 2 * dim) * kRidge;
  normal.selfadjointView<Eigen::Lower>().rankUpdate(features.transpose());
  Eigen::VectorXf solution =
      normal.selfadjointView<Eigen::Lower>().ldlt().solve(features.transpose() *
                                                          wanted);
  solution.array() *= scale.transpose().array();
  double constant = 0;
  for (Eigen::Index d = 0; d < dim; ++d) {
    const auto share = static_cast<float>(-kImportanceShare / 2);
    predictor.linear[d] = share * solution[d];
    predictor.square[d] = share * solution[dim + d];
    constant -= double{centre[d]} * predictor.linear[d] +
                double{centre[dim + d]} * predictor.square[d];
  }
  predictor.constant = static_cast<float>(constant);
  const auto is_finite = [](const std::vector<float>& v) {
    for (const float x : v) {
      if (!std::isfinite(x)) return false;
    }
    return true;
  };
  if (!is_finite(predictor.linear) || !is_finite(predictor.square) ||
      !std::isfinite(predictor.constant)) {
    predictor.linear.assign(dim, 0.0f);
    predictor.square.assign(dim, 0.0f);
    predictor.constant = 0;
  }
  return predictor;
}

}  // namespace kdn::codec
