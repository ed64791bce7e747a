#include "kv/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "kv/check.h"

namespace kdn {
namespace {

constexpr uint64_t kSubBuckets = 1u << Histogram::kSubBucketBits;

}  // namespace

size_t Histogram::BucketOf(uint64_t value) {
  value = std::min(value, (uint64_t{1} << kValueBitsMax) - 1);
  if (value < kSubBuckets) return value;
  // The highest bit names the power of two, the bits behind it the sub-bucket.
  const int shift = std::bit_width(value) - 1 - kSubBucketBits;
  return (static_cast<size_t>(shift) << kSubBucketBits) + (value >> shift);
}

uint64_t Histogram::AtMost(size_t bucket) {
  KDN_CHECK(bucket < kBucketCount, "there is no such bucket");
  if (bucket < kSubBuckets) return bucket;
  const uint64_t shift = (bucket >> kSubBucketBits) - 1;
  const uint64_t top = kSubBuckets + (bucket & (kSubBuckets - 1));
  return ((top + 1) << shift) - 1;
}

void Histogram::Record(uint64_t value) {
  AddBucket(value, 1);
  sum_ += value;
}

void Histogram::AddBucket(uint64_t at_most, uint64_t count) {
  if (count == 0) return;
  const size_t bucket = BucketOf(at_most);
  if (counts_.size() <= bucket) counts_.resize(bucket + 1);
  counts_[bucket] += count;
}

void Histogram::Merge(const Histogram& other) {
  counts_.resize(std::max(counts_.size(), other.counts_.size()));
  for (size_t i = 0; i < other.counts_.size(); ++i) {
    counts_[i] += other.counts_[i];
  }
  sum_ += other.sum_;
}

uint64_t Histogram::count() const {
  return std::accumulate(counts_.begin(), counts_.end(), uint64_t{0});
}

uint64_t Histogram::Quantile(double q) const {
  const uint64_t all = count();
  const double rank =
      std::ceil(std::clamp(q, 0.0, 1.0) * static_cast<double>(all));
  uint64_t seen = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    seen += counts_[i];
    if (seen > 0 && static_cast<double>(seen) >= rank) return AtMost(i);
  }
  return counts_.empty() ? 0 : AtMost(counts_.size() - 1);
}

std::vector<Histogram::Bucket> Histogram::Buckets() const {
  std::vector<Bucket> buckets;
  for (size_t i = 0; i < counts_.size(); ++i) {
    if (counts_[i] > 0) buckets.push_back({AtMost(i), counts_[i]});
  }
  return buckets;
}

}  // namespace kdn
