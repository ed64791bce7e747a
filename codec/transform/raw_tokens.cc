#include "codec/transform/raw_tokens.h"

#include <utility>

#include "codec/kernels/vector_kernels.h"
#include "kv/check.h"

namespace kdn::codec {
namespace {

// The squared distance of each row from the mean.
std::vector<double> SquaresOf(absl::Span<const float> rows,
                              absl::Span<const float> mean) {
  std::vector<double> squares;
  squares.reserve(rows.size() / mean.size());
  for (size_t at = 0; at < rows.size(); at += mean.size()) {
    squares.push_back(
        kernels::SquaredDistance(rows.data() + at, mean.data(), mean.size()));
  }
  return squares;
}

double MedianOf(std::vector<double> values) {
  const auto middle =
      values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::vector<float> MeanWithout(const std::vector<int>& left_out,
                               absl::Span<const float> rows, int dim) {
  const int tokens = static_cast<int>(rows.size()) / dim;
  std::vector<double> sums(dim);
  for (int token = 0; token < tokens; ++token) {
    if (std::binary_search(left_out.begin(), left_out.end(), token)) continue;
    const float* row = rows.data() + static_cast<size_t>(token) * dim;
    for (int d = 0; d < dim; ++d) sums[d] += row[d];
  }
  const double count = tokens - static_cast<double>(left_out.size());
  std::vector<float> mean;
  for (const double sum : sums) mean.push_back(static_cast<float>(sum / count));
  return mean;
}

}  // namespace

std::vector<int> FarTokens(absl::Span<const float> rows,
                           absl::Span<const float> mean,
                           absl::Span<const int32_t> positions) {
  KDN_CHECK(rows.size() == mean.size() * positions.size(),
            "a row and a position for each token");
  const std::vector<double> squares = SquaresOf(rows, mean);
  const double median = MedianOf(squares);
  const int tokens = static_cast<int>(positions.size());
  const bool has_sink = tokens >= kSinkTokensMin && positions[0] == 0;
  std::vector<int> far;
  for (int token = has_sink ? 1 : 0; token < tokens; ++token) {
    const double distances =
        positions[token] < kSinkPositions ? kFarSinkDistances : kFarDistances;
    if (squares[token] > distances * distances * median) far.push_back(token);
  }
  const size_t most = FarTokensMax(tokens);
  if (far.size() > most) {
    std::stable_sort(far.begin(), far.end(), [&squares](int a, int b) {
      return squares[a] > squares[b];
    });
    far.resize(most);
    std::sort(far.begin(), far.end());
  }
  if (has_sink) far.insert(far.begin(), 0);
  return far;
}

CentredRows CentreWithoutFar(absl::Span<const float> rows, int dim,
                             absl::Span<const int32_t> positions) {
  CentredRows centred;
  // The farthest tokens pull the mean towards themselves, which can hide other
  // far tokens. So this repeats, with the mean of the other rows, as long as it
  // finds more far tokens.
  for (;;) {
    centred.mean = MeanWithout(centred.far, rows, dim);
    std::vector<int> far = FarTokens(rows, centred.mean, positions);
    if (far.size() <= centred.far.size()) return centred;
    centred.far = std::move(far);
  }
}

}  // namespace kdn::codec
