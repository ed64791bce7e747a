#ifndef KDN_BENCH_MEDIAN_H_
#define KDN_BENCH_MEDIAN_H_

#include <algorithm>
#include <cstddef>
#include <vector>

namespace kdn::bench {

// REQUIRES: there are values.
inline double MedianOf(std::vector<double> values) {
  const auto middle =
      values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace kdn::bench

#endif  // KDN_BENCH_MEDIAN_H_
