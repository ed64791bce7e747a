#ifndef KDN_CODEC_CALIBRATION_ROW_PRODUCTS_H_
#define KDN_CODEC_CALIBRATION_ROW_PRODUCTS_H_

#include <cstddef>

#include "absl/types/span.h"

namespace kdn::codec {

// Adds x x' of each of the rows x to `products`, [dim][dim], in the elements
// [a][b] with b <= a. `rows` are [row][dim].
void AddRowProducts(absl::Span<const double> rows, size_t dim,
                    double* products);

}  // namespace kdn::codec

#endif  // KDN_CODEC_CALIBRATION_ROW_PRODUCTS_H_
