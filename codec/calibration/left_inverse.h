#ifndef KDN_CODEC_CALIBRATION_LEFT_INVERSE_H_
#define KDN_CODEC_CALIBRATION_LEFT_INVERSE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace kdn::codec {

// A left inverse of diag(scales) * matrix, which turns diag(scales) * matrix *
// q back into q. `matrix` is [rows][columns], the result [columns][rows];
// scales are as many as rows, or a divisor: then each is for equally many rows.
// A column of zeros gives a row of zeros. INVALID_ARGUMENT when the other
// columns are linearly dependent.
absl::StatusOr<std::vector<float>> LeftInverse(absl::Span<const int8_t> matrix,
                                               int rows, int columns,
                                               absl::Span<const float> scales);

}  // namespace kdn::codec

#endif  // KDN_CODEC_CALIBRATION_LEFT_INVERSE_H_
