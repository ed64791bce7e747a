#ifndef KDN_CODEC_CALIBRATION_LEFT_INVERSE_H_
#define KDN_CODEC_CALIBRATION_LEFT_INVERSE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace kdn::codec {

// The matrix [columns][rows] that takes scale * matrix * q back to q.
// `matrix` is [rows][columns]; rows of the result that belong to columns of
// zeros are zero. INVALID_ARGUMENT when its other columns depend on each other.
absl::StatusOr<std::vector<float>> LeftInverse(absl::Span<const int8_t> matrix,
                                               int rows, int columns,
                                               double scale);

}  // namespace kdn::codec

#endif  // KDN_CODEC_CALIBRATION_LEFT_INVERSE_H_
