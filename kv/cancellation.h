#ifndef KDN_KV_CANCELLATION_H_
#define KDN_KV_CANCELLATION_H_

#include <atomic>

namespace kdn {

// Says that nobody wants the result of a request any more. The request still
// ends by itself: its memory is in use until then. Thread-safe.
class Cancellation {
 public:
  void Cancel() { cancelled_.store(true); }
  bool cancelled() const { return cancelled_.load(); }

 private:
  std::atomic<bool> cancelled_{false};
};

}  // namespace kdn

#endif  // KDN_KV_CANCELLATION_H_
