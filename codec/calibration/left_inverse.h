#ifndef KDN_CODEC_CALIBRATION_LEFT_INVERSE_H_
#define KDN_CODEC_CALIBRATION_LEFT_INVERSE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace kdn::codec {

// The left inverse of scale * matrix, which turns scale * matrix * q back into
// q. `matrix` is [rows][columns], the result [columns][rows]. A column of zeros
// gives a row of zeros. INVALID_ARGUMENT when the other columns are linearly
// dependent.
absl::StatusOr<std::vector<float>> LeftInverse(absl::Span<const int8_t> matrix,
                                               int rows, int columns,
                                               double scale);

}  // namespace kdn::codec

#endif  // KDN_CODEC_CALIBRATION_LEFT_INVERSE_H_
