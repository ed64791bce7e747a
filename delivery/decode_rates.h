#ifndef KDN_DELIVERY_DECODE_RATES_H_
#define KDN_DELIVERY_DECODE_RATES_H_

#include <array>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "kv/level.h"

namespace kdn::delivery {

// Bytes of KV in the engine's dtype that all workers of a node decode a second,
// by Level. 0: unknown.
using DecodeRates = std::array<double, kLevelCount>;

// The levels that are decoded no slower than the engine would compute the same
// KV, of `token_bytes` a token. All of them while neither rate is known. Pure.
LevelSet FasterThanPrefill(LevelSet levels, const DecodeRates& rates,
                           uint64_t token_bytes,
                           double prefill_tokens_per_second);

// What decoding takes on this node, learnt from layers that were decoded: the
// whole node's rate, as for a retrieve that has its workers to itself. Has no
// clock. Thread-safe.
class DecodeBook {
 public:
  // The last ones speak: about so many bytes of KV a level.
  static constexpr uint64_t kWindowBytes = 64u << 20;
  // A level that is always recomputed would never be measured again: then it is
  // unknown, and tried.
  static constexpr absl::Duration kForgotten = absl::Seconds(30);

  // REQUIRES: workers >= 1.
  explicit DecodeBook(int workers) : workers_(workers) {}

  // One worker decoded one layer, of so many bytes of KV, until `now`.
  void OnLayer(Level level, uint64_t kv_bytes, absl::Duration took,
               absl::Time now);
  DecodeRates RatesAt(absl::Time now) const;

 private:
  struct Sum {
    double bytes = 0;
    double seconds = 0;
    absl::Time last = absl::InfinitePast();
  };
  const int workers_;
  mutable absl::Mutex mutex_;
  std::array<Sum, kLevelCount> sums_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_DECODE_RATES_H_
