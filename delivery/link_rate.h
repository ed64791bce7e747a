#ifndef KDN_DELIVERY_LINK_RATE_H_
#define KDN_DELIVERY_LINK_RATE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/time/time.h"

namespace kdn::delivery {

// How fast bytes come from one peer, learnt from transfers that have ended,
// those that were cut short included (with what had arrived).
//
// The least of a moving average, the mean of the last few, and the last: the
// first two remember a bad spell, the last believes a sudden drop, because a
// delivery at too low a level costs less than one that comes too late. What
// transfers that run side by side measure is the share of one of them, which is
// what the next one gets too.
//
// A rate so low that nothing is loaded any more would never be measured again.
// So without transfers the estimate climbs, back to what the link used to give,
// and in the end is unknown. A wrong hope costs one delivery at too high a
// level; the transfer it makes puts the estimate right.
//
// Has no clock. Pure; thread-compatible.
class LinkRate {
 public:
  // What is told about less than this, unless it took kSampleTime, is latency
  // more than rate, and is ignored. Of a node that loads little at a time it
  // would make a slow peer, hence less loading: the spiral of adaptive video.
  static constexpr uint64_t kSampleBytes = 256u << 10;
  static constexpr absl::Duration kSampleTime = absl::Seconds(1);
  static constexpr size_t kRecent = 5;
  // Three transfers after a change two thirds of it are believed: 1 - 0.7^3.
  static constexpr double kWeight = 0.3;
  // Without transfers: as measured for kFresh, then doubling every kDoubling (a
  // tenfold drop is forgiven within 22 s), unknown after kForgotten.
  static constexpr absl::Duration kFresh = absl::Seconds(5);
  static constexpr absl::Duration kDoubling = absl::Seconds(5);
  static constexpr absl::Duration kForgotten = absl::Minutes(10);
  // Where a link begins to climb that gave nothing at all, bytes/s.
  static constexpr double kLeast = 64 << 10;

  // A transfer of `bytes` ended at `now`; `took` is from its first byte (or,
  // if none came, from when one was due) to its last.
  void OnTransfer(uint64_t bytes, absl::Duration took, absl::Time now);
  // Unknown before the first transfer worth counting.
  std::optional<double> BytesPerSecond(absl::Time now) const;

 private:
  struct Sample {
    double bytes = 0;
    double seconds = 0;
  };
  // The harmonic mean of the last rates, each weighted by its bytes: all bytes
  // over all time. An unweighted one would let a short hiccup speak for as much
  // as a long transfer.
  double RecentMean() const;

  std::vector<Sample> recent_;  // a ring, once full
  size_t next_ = 0;
  double latest_ = 0;
  double average_ = 0;
  // The average's high-water mark, which sinks towards it: a tenth of the way
  // with every transfer, so that a link slower for good is believed to be.
  double peak_ = 0;
  absl::Time last_ = absl::InfinitePast();
};

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_LINK_RATE_H_
