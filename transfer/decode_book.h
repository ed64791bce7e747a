#ifndef KDN_TRANSFER_DECODE_BOOK_H_
#define KDN_TRANSFER_DECODE_BOOK_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "delivery/decode_rates.h"
#include "kv/level.h"

namespace kdn::transfer {

// The node's delivery::DecodeRateEstimate, to which all its workers report.
// Thread-safe.
class DecodeBook {
 public:
  // REQUIRES: workers >= 1.
  explicit DecodeBook(int workers) : estimate_(workers) {}

  // See DecodeRateEstimate.
  void OnLayer(Level level, uint64_t kv_bytes, absl::Duration took,
               absl::Time now) {
    absl::MutexLock lock(&mutex_);
    estimate_.OnLayer(level, kv_bytes, took, now);
  }
  delivery::DecodeRates RatesAt(absl::Time now) const {
    absl::MutexLock lock(&mutex_);
    return estimate_.RatesAt(now);
  }

 private:
  mutable absl::Mutex mutex_;
  delivery::DecodeRateEstimate estimate_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kdn::transfer

#endif  // KDN_TRANSFER_DECODE_BOOK_H_
