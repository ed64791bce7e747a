#include "kv/meters.h"

#include <algorithm>

#include "kv/check.h"

namespace kdn {

Meters::Meters() {
  for (size_t i = 0; i < kMetricCount; ++i) {
    if (kMetricTable[i].type == MetricType::kHistogram) {
      distributions_[i] = std::make_unique<Distribution>();
    }
  }
}

void Meters::Add(Metric counter, uint64_t count) {
  KDN_DCHECK(counter.info().type == MetricType::kCounter,
             "Add takes counters only");
  counters_[counter.index()].fetch_add(count, std::memory_order_relaxed);
}

void Meters::Record(Metric histogram, absl::Duration took) {
  Distribution* const distribution = distributions_[histogram.index()].get();
  KDN_CHECK(distribution != nullptr, "Record takes histograms only");
  const auto us = static_cast<uint64_t>(
      std::max<int64_t>(absl::ToInt64Microseconds(took), 0));
  distribution->counts[Histogram::BucketOf(us)].fetch_add(
      1, std::memory_order_relaxed);
  distribution->sum.fetch_add(us, std::memory_order_relaxed);
}

uint64_t Meters::Get(Metric counter) const {
  return counters_[counter.index()].load(std::memory_order_relaxed);
}

MetricValues Meters::Read() const {
  MetricValues values;
  for (size_t i = 0; i < kMetricCount; ++i) {
    const Metric metric = Metric::At(i);
    const Distribution* const distribution = distributions_[i].get();
    if (distribution == nullptr) {
      values[metric] = Get(metric);
      continue;
    }
    Histogram histogram;
    for (size_t b = 0; b < Histogram::kBucketCount; ++b) {
      histogram.AddBucket(Histogram::AtMost(b), distribution->counts[b].load(
                                                    std::memory_order_relaxed));
    }
    histogram.AddSum(distribution->sum.load(std::memory_order_relaxed));
    if (histogram.count() > 0) values.histogram(metric) = std::move(histogram);
  }
  return values;
}

}  // namespace kdn
