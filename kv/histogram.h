#ifndef KDN_KV_HISTOGRAM_H_
#define KDN_KV_HISTOGRAM_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kdn {

// Counts of values in fixed log-linear buckets: one bucket for each value below
// 8, then 8 buckets for each power of two. All histograms have the same
// buckets, so histograms of several threads and nodes can be added.
//
// A bucket is at most an eighth as wide as its smallest value. Quantile()
// returns the largest value of the bucket that the true quantile lies in, so
// its result is never below the true quantile, and less than 12.5 % above it.
// Values of 2^40 and more count in the last bucket.
class Histogram {
 public:
  static constexpr int kSubBucketBits = 3;
  static constexpr int kValueBitsMax = 40;
  static constexpr size_t kBucketCount = (kValueBitsMax - kSubBucketBits + 1)
                                         << kSubBucketBits;

  static size_t BucketOf(uint64_t value);
  // The largest value of the bucket. REQUIRES: bucket < kBucketCount.
  static uint64_t AtMost(size_t bucket);

  // One bucket that is not empty. `at_most` is its largest value, which tells
  // other programs its range.
  struct Bucket {
    uint64_t at_most = 0;
    uint64_t count = 0;
    bool operator==(const Bucket&) const = default;
  };

  void Record(uint64_t value);
  // Adds `count` values to the bucket that has `at_most` in its range. Does not
  // change sum().
  void AddBucket(uint64_t at_most, uint64_t count);
  void AddSum(uint64_t sum) { sum_ += sum; }
  void Merge(const Histogram& other);

  uint64_t count() const;
  uint64_t sum() const { return sum_; }
  // The value that the share `q` (0 to 1) of the recorded values does not
  // exceed, to the accuracy above. 0 if nothing was recorded.
  uint64_t Quantile(double q) const;
  // The buckets that are not empty, the smallest values first.
  std::vector<Bucket> Buckets() const;

  bool operator==(const Histogram&) const = default;

 private:
  std::vector<uint64_t> counts_;  // by bucket, up to the last that is not empty
  uint64_t sum_ = 0;
};

}  // namespace kdn

#endif  // KDN_KV_HISTOGRAM_H_
