#ifndef KDN_RPC_EVENT_LOOP_H_
#define KDN_RPC_EVENT_LOOP_H_

#include <kj/async-io.h>
#include <kj/async-unix.h>
#include <kj/debug.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "kv/check.h"

namespace kdn::rpc {

// Closures that any thread posts to a loop thread. A batch of posts wakes the
// loop once, with a write to an eventfd, because a wake-up across cores costs
// some 35 us. Thread-safe. Shared by the loop and by every thread that may
// still post when the loop is gone.
class LoopInbox {
 public:
  using Task = absl::AnyInvocable<void()>;
  LoopInbox();
  ~LoopInbox();
  // False once the loop is closed; then the task is destroyed here.
  bool Post(Task task);
  std::vector<Task> TakeAll();
  void Close();
  int wake_fd() const { return wake_fd_; }

 private:
  const int wake_fd_;
  absl::Mutex mutex_;
  std::vector<Task> tasks_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

// A thread with a KJ event loop, and the answers that the loop expects from
// other threads. Promises, capabilities and streams that are made on the thread
// are used and destroyed on it.
//
// Invariant: the `keep` of an expected answer (Expect) lives until the answer
// has come, even when nobody waits for it any more, because the answering
// thread may use that memory until then.
class EventLoop {
 public:
  EventLoop();
  ~EventLoop();  // REQUIRES: everything made on the loop has been destroyed
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Any thread: runs `task` on the loop later. False once the loop has ended.
  bool Post(LoopInbox::Task task) { return inbox_->Post(std::move(task)); }
  // For threads that may still post when the loop is gone.
  std::shared_ptr<LoopInbox> inbox() const { return inbox_; }
  // Any thread but the loop's: runs `body` on the loop and waits until it ends.
  void Run(absl::FunctionRef<void()> body);
  // The same, and waits for the promise that `body` returns.
  void RunAsync(absl::FunctionRef<kj::Promise<void>()> body);

  // Loop thread only, from here on.
  kj::AsyncIoProvider& io() { return *io_->provider; }
  kj::LowLevelAsyncIoProvider& low_level_io() { return *io_->lowLevelProvider; }
  kj::UnixEventPort& event_port() { return io_->unixEventPort; }
  // The present. The loop's timer is no clock: its time is that of the loop's
  // last poll.
  static kj::TimePoint Now() { return kj::systemPreciseMonotonicClock().now(); }
  static kj::TimePoint In(absl::Duration time) {
    return Now() + absl::ToInt64Microseconds(time) * kj::MICROSECONDS;
  }
  kj::Promise<void> At(kj::TimePoint time) {
    return io_->provider->getTimer().atTime(time);
  }
  void AssertOnLoop() const {
    KDN_DCHECK(std::this_thread::get_id() == thread_.get_id(),
               "used off its loop thread");
  }

  template <typename T>
  struct Expected {
    absl::AnyInvocable<void(T)> done;  // call once, on any thread
    kj::Promise<T> promise;
  };
  // A callback for another thread, and a promise of the value with which the
  // callback is called. Dropping the callback fails the promise. `keep` is
  // released on the loop thread after the call or the drop. `lent`: the other
  // thread uses the memory of `keep`, so the loop must not end before the call
  // or the drop; see WhenNothingLent.
  template <typename T>
  Expected<T> Expect(std::shared_ptr<void> keep = nullptr, bool lent = false);
  // Resolves when no lent `keep` is left.
  kj::Promise<void> WhenNothingLent();
  // Answers that have not come yet. Any thread.
  uint64_t expected() const { return expected_count_.load(); }

 private:
  struct Landing {
    virtual ~Landing() = default;
    std::shared_ptr<void> keep;
    bool lent = false;
  };
  template <typename T>
  struct TypedLanding;
  template <typename T>
  struct Fulfilment;

  void Main(absl::AnyInvocable<void()> ready);
  kj::Promise<void> ServeInbox(kj::UnixEventPort::FdObserver& observer);
  void AddLanding(uint64_t id, std::unique_ptr<Landing> landing);
  std::unique_ptr<Landing> TakeLanding(uint64_t id);

  std::shared_ptr<LoopInbox> inbox_ = std::make_shared<LoopInbox>();
  kj::AsyncIoContext* io_ = nullptr;
  kj::Own<kj::PromiseFulfiller<void>> stop_;
  std::unordered_map<uint64_t, std::unique_ptr<Landing>> landings_;
  uint64_t next_landing_ = 0;
  size_t lent_ = 0;
  std::vector<kj::Own<kj::PromiseFulfiller<void>>> idle_waiters_;
  std::atomic<uint64_t> expected_count_{0};
  std::thread thread_;
};

template <typename T>
struct EventLoop::TypedLanding : Landing {
  ~TypedLanding() noexcept override = default;
  kj::Own<kj::PromiseFulfiller<T>> fulfiller;
};

// The callable in Expected::done. Its destructor fails the promise if it was
// never called, so that a dropped callback is an error at once.
template <typename T>
struct EventLoop::Fulfilment {
  EventLoop* loop;
  std::shared_ptr<LoopInbox> inbox;
  uint64_t id;

  Fulfilment(EventLoop* l, uint64_t i) : loop(l), inbox(l->inbox_), id(i) {}
  Fulfilment(Fulfilment&&) = default;
  ~Fulfilment() {
    if (inbox == nullptr) return;
    inbox->Post([l = loop, i = id] { l->TakeLanding(i); });
  }
  void operator()(T value) {
    // `loop` is used only inside tasks, which run only while it lives.
    std::shared_ptr<LoopInbox> out = std::move(inbox);
    KDN_CHECK(out != nullptr, "an answer was given twice");
    out->Post([l = loop, i = id, v = std::move(value)]() mutable {
      std::unique_ptr<Landing> landing = l->TakeLanding(i);
      static_cast<TypedLanding<T>*>(landing.get())
          ->fulfiller->fulfill(std::move(v));
    });
  }
};

template <typename T>
EventLoop::Expected<T> EventLoop::Expect(std::shared_ptr<void> keep,
                                         bool lent) {
  AssertOnLoop();
  auto paf = kj::newPromiseAndFulfiller<T>();
  auto landing = std::make_unique<TypedLanding<T>>();
  landing->keep = std::move(keep);
  landing->lent = lent;
  landing->fulfiller = kj::mv(paf.fulfiller);
  const uint64_t id = next_landing_++;
  AddLanding(id, std::move(landing));
  return Expected<T>{Fulfilment<T>(this, id), kj::mv(paf.promise)};
}

// The value of `promise`; DEADLINE_EXCEEDED once `deadline` has passed;
// UNAVAILABLE when the promise fails, for instance because a callback was
// dropped. The messages of the errors begin with `what`.
template <typename T>
kj::Promise<T> ByDeadline(EventLoop& loop, kj::Promise<T> promise,
                          kj::TimePoint deadline, const char* what) {
  return promise
      .catch_([what](kj::Exception&&) -> T {
        return absl::UnavailableError(
            absl::StrCat(what, ": ended without an answer"));
      })
      .exclusiveJoin(loop.At(deadline).then([what]() -> T {
        return absl::DeadlineExceededError(
            absl::StrCat(what, ": no answer by the deadline"));
      }));
}

// The value of `promise`, or a DISCONNECTED exception when it takes longer than
// `limit`.
template <typename T>
kj::Promise<T> Within(EventLoop& loop, absl::Duration limit,
                      kj::Promise<T> promise) {
  return promise.exclusiveJoin(
      loop.At(EventLoop::In(limit)).then([]() -> kj::Promise<T> {
        return KJ_EXCEPTION(DISCONNECTED, "the other side stalled");
      }));
}

}  // namespace kdn::rpc

#endif  // KDN_RPC_EVENT_LOOP_H_
