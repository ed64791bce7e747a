#ifndef KDN_KV_CANCELLATION_H_
#define KDN_KV_CANCELLATION_H_

#include <functional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace kdn {

// A flag for the code that serves a request: it says that nobody needs the
// result any more. Setting the flag does not end the request: the request still
// ends by itself, and its memory stays in use until then. Thread-safe.
class Cancellation {
 public:
  // Sets the flag, and runs all listeners before it returns. Only the first
  // call has an effect.
  void Cancel();
  bool cancelled() const;
  // Runs `listener` once: on the thread that calls Cancel, or before this call
  // returns if Cancel was called already. The listener must not block. This
  // object keeps the listener until Cancel or its own end. So the listener must
  // not own an owner of this object: without Cancel, neither would ever be
  // freed.
  void OnCancel(std::function<void()> listener);

 private:
  mutable absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::function<void()>> listeners_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kdn

#endif  // KDN_KV_CANCELLATION_H_
