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
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "kv/check.h"

namespace kdn::rpc {

// Closures that any thread leaves for a loop thread. One wake-up (a write to an
// eventfd) per batch, however many are left before the loop gets to them: a
// wake-up across cores costs some 35 us. Thread-safe; shared by the loop and by
// everyone who may still post when the loop is gone.
class LoopInbox {
 public:
  using Task = absl::AnyInvocable<void()>;
  LoopInbox();
  ~LoopInbox();
  // False, and the task is destroyed here, once the loop is closed.
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

// A thread with a KJ event loop, and the answers it waits for from other
// threads. Promises, capabilities and streams made on it live and die on it.
//
// Invariant: what is kept for an expected answer (Expect) is kept until the
// answer came, whether or not anyone still waits for it, because the answering
// side may use that memory until then.
class EventLoop {
 public:
  EventLoop();
  ~EventLoop();  // REQUIRES: everything made on the loop is gone already
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Any thread: runs `task` on the loop, later.
  bool Post(LoopInbox::Task task) { return inbox_->Post(std::move(task)); }
  // For who may outlive the loop.
  std::shared_ptr<LoopInbox> inbox() const { return inbox_; }
  // Any thread but the loop's: runs `body` there and waits for its end.
  void Run(absl::FunctionRef<void()> body);
  // The same, also waiting for the promise it returns.
  void RunAsync(absl::FunctionRef<kj::Promise<void>()> body);

  // The rest: loop thread only.
  kj::AsyncIoProvider& io() { return *io_->provider; }
  kj::LowLevelAsyncIoProvider& low_level_io() { return *io_->lowLevelProvider; }
  // The timer's own idea of now is as old as the loop's last poll.
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
  // A pair of a callback for another thread and a promise of what it is called
  // with. `keep` is let go on the loop thread once `done` was called or dropped
  // (a dropped one fails the promise). `lent`: it is memory the other thread
  // uses, so the loop may not end before.
  template <typename T>
  Expected<T> Expect(std::shared_ptr<void> keep = nullptr, bool lent = false);
  kj::Promise<void> WhenNothingLent();
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

// The callable behind Expected::done. Reports its own death, so that an answer
// that never comes is an error at once.
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

// `promise`, or DEADLINE_EXCEEDED once `deadline` has passed, or UNAVAILABLE
// when the other side dropped the question.
template <typename T>
kj::Promise<T> ByDeadline(EventLoop& loop, kj::Promise<T> promise,
                          kj::TimePoint deadline, const char* what) {
  return promise
      .catch_([what](kj::Exception&&) -> T {
        return absl::UnavailableError(absl::string_view(what));
      })
      .exclusiveJoin(loop.At(deadline).then([what]() -> T {
        return absl::DeadlineExceededError(absl::string_view(what));
      }));
}

// `promise`, or an exception when it takes longer than `limit`.
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
