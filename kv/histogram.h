#ifndef KDN_KV_HISTOGRAM_H_
#define KDN_KV_HISTOGRAM_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kdn {

// Counts of values in fixed log-linear buckets: one bucket for each value below
// 8, then 8 buckets for each power of two. Buckets are the same everywhere, so
// histograms of several threads and nodes add up.
//
// A bucket is at most an eighth as wide as its smallest value. A quantile is
// the largest value of its bucket: never below the true quantile, and less than
// 12.5 % above it. Values of 2^40 and more count in the last bucket.
class Histogram {
 public:
  static constexpr int kSubBucketBits = 3;
  static constexpr int kValueBitsMax = 40;
  static constexpr size_t kBucketCount = (kValueBitsMax - kSubBucketBits + 1)
                                         << kSubBucketBits;

  static size_t BucketOf(uint64_t value);
  // The largest value of the bucket. REQUIRES: bucket < kBucketCount.
  static uint64_t AtMost(size_t bucket);

  // One bucket that is not empty. `at_most` tells other programs its range.
  struct Bucket {
    uint64_t at_most = 0;
    uint64_t count = 0;
    bool operator==(const Bucket&) const = default;
  };

  void Record(uint64_t value);
  // `count` values of the bucket that has `at_most` in its range; the sum of
  // values is not touched.
  void AddBucket(uint64_t at_most, uint64_t count);
  void AddSum(uint64_t sum) { sum_ += sum; }
  void Merge(const Histogram& other);

  uint64_t count() const;
  uint64_t sum() const { return sum_; }
  // The value that the share `q` (0 to 1) of the recorded ones do not exceed;
  // 0 without any.
  uint64_t Quantile(double q) const;
  // Those that are not empty, the smallest values first.
  std::vector<Bucket> Buckets() const;

  bool operator==(const Histogram&) const = default;

 private:
  std::vector<uint64_t> counts_;  // up to the last bucket that is not empty
  uint64_t sum_ = 0;
};

}  // namespace kdn

#endif  // KDN_KV_HISTOGRAM_H_
