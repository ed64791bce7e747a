#ifndef KDN_CODEC_CALIBRATION_EIGENPAIRS_H_
#define KDN_CODEC_CALIBRATION_EIGENPAIRS_H_

#include <vector>

#include "absl/types/span.h"

namespace kdn::codec {

struct Eigenpairs {
  std::vector<double> values;   // falling
  std::vector<double> vectors;  // [dimension][pair], of length 1
};
// Of a symmetric matrix [dim][dim]. The only user of Eigen.
Eigenpairs EigenpairsOf(absl::Span<const double> matrix, int dim);

}  // namespace kdn::codec

#endif  // KDN_CODEC_CALIBRATION_EIGENPAIRS_H_
