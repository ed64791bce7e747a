#include "codec/calibration/row_products.h"

namespace kdn::codec {
namespace {

// Rows at a time: the products are read and written once for all of them.
constexpr size_t kRows = 8;

}  // namespace

void AddRowProducts(absl::Span<const double> rows, size_t dim,
                    double* products) {
  const size_t count = rows.size() / dim;
  size_t row = 0;
  for (; row + kRows <= count; row += kRows) {
    const double* const x = rows.data() + row * dim;
    for (size_t a = 0; a < dim; ++a) {
      double* const out = products + a * dim;
      double factors[kRows];
      for (size_t i = 0; i < kRows; ++i) factors[i] = x[i * dim + a];
      for (size_t b = 0; b <= a; ++b) {
        double sum = 0;
        for (size_t i = 0; i < kRows; ++i) sum += factors[i] * x[i * dim + b];
        out[b] += sum;
      }
    }
  }
  for (; row < count; ++row) {
    const double* const x = rows.data() + row * dim;
    for (size_t a = 0; a < dim; ++a) {
      for (size_t b = 0; b <= a; ++b) products[a * dim + b] += x[a] * x[b];
    }
  }
}

}  // namespace kdn::codec
