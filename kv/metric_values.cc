#include "kv/metric_values.h"

#include <optional>

#include "kv/check.h"

namespace kdn {
namespace {

const Histogram& EmptyHistogram() {
  static const Histogram* const empty = new Histogram();
  return *empty;
}

void AddTo(MetricSample& sum, const MetricSample& sample) {
  sum.value += sample.value;
  sum.histogram.Merge(sample.histogram);
}

}  // namespace

uint64_t& MetricValues::operator[](Metric metric) {
  KDN_DCHECK(metric.info().type != MetricType::kHistogram,
             "the metric is a histogram");
  return values_[metric.index()];
}

uint64_t MetricValues::operator[](Metric metric) const {
  KDN_DCHECK(metric.info().type != MetricType::kHistogram,
             "the metric is a histogram");
  return values_[metric.index()];
}

Histogram& MetricValues::histogram(Metric metric) {
  KDN_DCHECK(metric.info().type == MetricType::kHistogram,
             "the metric is not a histogram");
  return histograms_[metric.index()];
}

const Histogram& MetricValues::histogram(Metric metric) const {
  KDN_DCHECK(metric.info().type == MetricType::kHistogram,
             "the metric is not a histogram");
  const auto found = histograms_.find(metric.index());
  return found == histograms_.end() ? EmptyHistogram() : found->second;
}

void MetricValues::Merge(const MetricValues& other) {
  for (size_t i = 0; i < kMetricCount; ++i) values_[i] += other.values_[i];
  for (const auto& [index, histogram] : other.histograms_) {
    histograms_[index].Merge(histogram);
  }
  for (const auto& [name, sample] : other.unknown_) Add(sample);
}

std::vector<MetricSample> MetricValues::Samples() const {
  std::vector<MetricSample> samples;
  samples.reserve(kMetricCount + unknown_.size());
  for (size_t i = 0; i < kMetricCount; ++i) {
    const MetricInfo& info = kMetricTable[i];
    MetricSample sample{std::string(info.name), info.type, values_[i], {}};
    if (info.type == MetricType::kHistogram) {
      sample.histogram = histogram(Metric::At(i));
    }
    samples.push_back(std::move(sample));
  }
  for (const auto& [name, sample] : unknown_) samples.push_back(sample);
  return samples;
}

void MetricValues::Add(const MetricSample& sample) {
  const std::optional<Metric> metric = Metric::Find(sample.name);
  if (!metric) {
    const auto [known, fresh] = unknown_.emplace(sample.name, sample);
    if (!fresh && known->second.type == sample.type) {
      AddTo(known->second, sample);
    }
    return;
  }
  if (metric->info().type != sample.type) return;
  if (sample.type != MetricType::kHistogram) {
    values_[metric->index()] += sample.value;
  } else if (sample.histogram != Histogram()) {
    histograms_[metric->index()].Merge(sample.histogram);
  }
}

}  // namespace kdn
