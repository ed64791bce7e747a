// Debian's Abseil is built without ThreadSanitizer. So ThreadSanitizer sees
// neither its mutexes nor its notifications, and reports everything that they
// guard as a race. This file replaces the functions of Abseil that the project
// uses with functions that call the library's own and tell ThreadSanitizer.
// Linked into the programs of the tsan preset only.
#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

#include <atomic>

#include "absl/base/internal/spinlock_wait.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"

namespace {

// The library's own function; `symbol` is its name in Debian 12.
template <typename Function>
Function Real(const char* symbol) {
  void* found = dlsym(RTLD_NEXT, symbol);
  if (found == nullptr) __builtin_trap();  // another Abseil: adapt the names
  return reinterpret_cast<Function>(found);
}

}  // namespace

namespace absl {
ABSL_NAMESPACE_BEGIN
namespace {

// A condition is evaluated inside the library, by any thread that has the lock
// just then.
struct Watched {
  Mutex* mutex;
  const Condition* condition;

  static bool Eval(Watched* watched) {
    __tsan_acquire(watched->mutex);
    const bool result = watched->condition->Eval();
    __tsan_release(watched->mutex);
    return result;
  }
};

}  // namespace

void Mutex::Lock() {
  static const auto real =
      Real<void (*)(Mutex*)>("_ZN4absl7debian35Mutex4LockEv");
  real(this);
  __tsan_acquire(this);
}

void Mutex::Unlock() {
  static const auto real =
      Real<void (*)(Mutex*)>("_ZN4absl7debian35Mutex6UnlockEv");
  __tsan_release(this);
  real(this);
}

void Mutex::ReaderLock() {
  static const auto real =
      Real<void (*)(Mutex*)>("_ZN4absl7debian35Mutex10ReaderLockEv");
  real(this);
  __tsan_acquire(this);
}

void Mutex::ReaderUnlock() {
  static const auto real =
      Real<void (*)(Mutex*)>("_ZN4absl7debian35Mutex12ReaderUnlockEv");
  __tsan_release(this);
  real(this);
}

void Mutex::Await(const Condition& condition) {
  static const auto real = Real<void (*)(Mutex*, const Condition&)>(
      "_ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE");
  Watched watched{this, &condition};
  const Condition watching(&Watched::Eval, &watched);
  __tsan_release(this);
  real(this, watching);
  __tsan_acquire(this);
}

bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  static const auto real = Real<bool (*)(Mutex*, const Condition&, Duration)>(
      "_ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_"
      "8DurationE");
  Watched watched{this, &condition};
  const Condition watching(&Watched::Eval, &watched);
  __tsan_release(this);
  const bool result = real(this, watching, timeout);
  __tsan_acquire(this);
  return result;
}

void Notification::Notify() {
  static const auto real =
      Real<void (*)(Notification*)>("_ZN4absl7debian312Notification6NotifyEv");
  __tsan_release(this);
  real(this);
}

void Notification::WaitForNotification() const {
  static const auto real = Real<void (*)(const Notification*)>(
      "_ZNK4absl7debian312Notification19WaitForNotificationEv");
  real(this);
  __tsan_acquire(const_cast<Notification*>(this));
}

bool Notification::WaitForNotificationWithTimeout(Duration timeout) const {
  static const auto real = Real<bool (*)(const Notification*, Duration)>(
      "_ZNK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_"
      "8DurationE");
  const bool result = real(this, timeout);
  __tsan_acquire(const_cast<Notification*>(this));
  return result;
}

bool BlockingCounter::DecrementCount() {
  static const auto real = Real<bool (*)(BlockingCounter*)>(
      "_ZN4absl7debian315BlockingCounter14DecrementCountEv");
  __tsan_release(this);
  return real(this);
}

void BlockingCounter::Wait() {
  static const auto real = Real<void (*)(BlockingCounter*)>(
      "_ZN4absl7debian315BlockingCounter4WaitEv");
  real(this);
  __tsan_acquire(this);
}

namespace base_internal {

// A thread waits here while another thread is inside absl::call_once.
uint32_t SpinLockWait(std::atomic<uint32_t>* word, int n,
                      const SpinLockWaitTransition transitions[],
                      SchedulingMode mode) {
  static const auto real =
      Real<uint32_t (*)(std::atomic<uint32_t>*, int,
                        const SpinLockWaitTransition[], SchedulingMode)>(
          "_ZN4absl7debian313base_internal12SpinLockWaitEPSt6atomicIjEiPKNS1_"
          "22SpinLockWaitTransitionENS1_14SchedulingModeE");
  const uint32_t result = real(word, n, transitions, mode);
  __tsan_acquire(word);
  return result;
}

}  // namespace base_internal
ABSL_NAMESPACE_END
}  // namespace absl
