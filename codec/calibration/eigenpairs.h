#ifndef KDN_CODEC_CALIBRATION_EIGENPAIRS_H_
#define KDN_CODEC_CALIBRATION_EIGENPAIRS_H_

#include <vector>

#include "absl/types/span.h"

namespace kdn::codec {

struct Eigenpairs {
  std::vector<double> values;   // the largest first
  std::vector<double> vectors;  // [dimension][pair], of length 1
};
// The eigenvalues and eigenvectors of a symmetric matrix [dim][dim]. No other
// code uses Eigen.
Eigenpairs EigenpairsOf(absl::Span<const double> matrix, int dim);

}  // namespace kdn::codec

#endif  // KDN_CODEC_CALIBRATION_EIGENPAIRS_H_
