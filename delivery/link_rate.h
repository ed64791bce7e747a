#ifndef KDN_DELIVERY_LINK_RATE_H_
#define KDN_DELIVERY_LINK_RATE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/time/time.h"

namespace kdn::delivery {

// Estimates how fast bytes come from one peer, from transfers that have ended.
// A transfer that was cut short counts with the bytes that had arrived.
//
// The estimate is the least of three values: a moving average, the mean of the
// last few transfers, and the last transfer. The first two remember a bad
// spell. The third follows a sudden drop at once, because a delivery at too low
// a level costs less than a late delivery. Each of several transfers at the
// same time measures its share of the link, which is also what the next
// transfer gets.
//
// A link that is so slow that nothing is loaded any more would never be
// measured again. So without transfers the estimate climbs back to the rate
// that the link had before, and in the end it is unknown. An estimate that
// climbed too high costs one delivery at too high a level, whose transfer
// corrects the estimate.
//
// Has no clock. Pure; thread-compatible.
class LinkRate {
 public:
  // A transfer of fewer bytes is ignored unless it took kSampleTime, because it
  // measures the latency more than the rate. If it counted, a peer from which
  // little is loaded would be underestimated, and then even less would be
  // loaded: the downward spiral of adaptive video.
  static constexpr uint64_t kSampleBytes = 256u << 10;
  static constexpr absl::Duration kSampleTime = absl::Seconds(1);
  // The mean is taken over so many of the last transfers.
  static constexpr size_t kRecent = 5;
  // The weight of a transfer in the moving average. Three transfers after a
  // change the average has followed two thirds of it: 1 - 0.7^3.
  static constexpr double kWeight = 0.3;
  // Without transfers the estimate stays for kFresh, then doubles every
  // kDoubling (it recovers from a tenfold drop within 22 s), and is unknown
  // after kForgotten.
  static constexpr absl::Duration kFresh = absl::Seconds(5);
  static constexpr absl::Duration kDoubling = absl::Seconds(5);
  static constexpr absl::Duration kForgotten = absl::Minutes(10);
  // If a link gave nothing at all, its estimate climbs from so many bytes/s.
  static constexpr double kLeast = 64 << 10;

  // A transfer of `bytes` ended at `now`. `took` is the time from its first
  // byte to its last byte. When no byte came, it begins when the first byte was
  // due.
  void OnTransfer(uint64_t bytes, absl::Duration took, absl::Time now);
  // Unset before the first transfer that counts.
  std::optional<double> BytesPerSecond(absl::Time now) const;

 private:
  struct Sample {
    double bytes = 0;
    double seconds = 0;
  };
  // The bytes of the last transfers divided by their time. This mean weights
  // each rate by its bytes; without weights a short slow transfer would count
  // as much as a long one.
  double RecentMean() const;

  std::vector<Sample> recent_;  // a ring of kRecent
  size_t next_ = 0;
  double latest_ = 0;
  double average_ = 0;
  // The high-water mark of the average. Each transfer lowers it by a tenth of
  // its distance to the average, so that it follows a link that stays slower.
  double peak_ = 0;
  absl::Time last_ = absl::InfinitePast();
};

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_LINK_RATE_H_
