#ifndef KDN_KV_CANCELLATION_H_
#define KDN_KV_CANCELLATION_H_

#include <functional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace kdn {

// Says that nobody wants the result of a request any more. The request still
// ends by itself: its memory is in use until then. Thread-safe.
class Cancellation {
 public:
  // Runs the listeners before it returns. Only the first call has an effect.
  void Cancel();
  bool cancelled() const;
  // `listener` runs once: on the thread that cancels, or here and now when that
  // has happened already. It may not block. It lives as long as this object, so
  // it must not own what owns this object.
  void OnCancel(std::function<void()> listener);

 private:
  mutable absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::function<void()>> listeners_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kdn

#endif  // KDN_KV_CANCELLATION_H_
