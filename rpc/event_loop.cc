#include "rpc/event_loop.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include "absl/synchronization/notification.h"

namespace kdn::rpc {

LoopInbox::LoopInbox() : wake_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  KDN_CHECK(wake_fd_ >= 0, "no file descriptor left for an event loop");
}

LoopInbox::~LoopInbox() { close(wake_fd_); }

bool LoopInbox::Post(Task task) {
  bool wake = false;
  {
    absl::MutexLock lock(&mutex_);
    if (closed_) return false;
    wake = tasks_.empty();
    tasks_.push_back(std::move(task));
  }
  if (wake) {
    const uint64_t one = 1;
    // The write fails only when the counter is full; then the loop is awake.
    [[maybe_unused]] ssize_t written = write(wake_fd_, &one, sizeof(one));
  }
  return true;
}

std::vector<LoopInbox::Task> LoopInbox::TakeAll() {
  uint64_t count;
  [[maybe_unused]] ssize_t got = read(wake_fd_, &count, sizeof(count));
  absl::MutexLock lock(&mutex_);
  return std::exchange(tasks_, {});
}

void LoopInbox::Close() {
  std::vector<Task> dropped;
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  dropped.swap(tasks_);
}

EventLoop::EventLoop() {
  absl::Notification ready;
  thread_ = std::thread([this, &ready] { Main([&ready] { ready.Notify(); }); });
  ready.WaitForNotification();
}

EventLoop::~EventLoop() {
  Post([this] { stop_->fulfill(); });
  thread_.join();
}

void EventLoop::Main(absl::AnyInvocable<void()> ready) {
  kj::AsyncIoContext io = kj::setupAsyncIo();
  io_ = &io;
  auto stop = kj::newPromiseAndFulfiller<void>();
  stop_ = kj::mv(stop.fulfiller);
  {
    kj::UnixEventPort::FdObserver observer(
        io.unixEventPort, inbox_->wake_fd(),
        kj::UnixEventPort::FdObserver::OBSERVE_READ);
    kj::Promise<void> serving =
        ServeInbox(observer).eagerlyEvaluate([](kj::Exception&& broken) {
          KDN_CHECK(false, broken.getDescription().cStr());
        });
    ready();
    stop.promise.wait(io.waitScope);
  }
  inbox_->Close();
  landings_.clear();
  idle_waiters_.clear();
  stop_ = nullptr;
}

kj::Promise<void> EventLoop::ServeInbox(
    kj::UnixEventPort::FdObserver& observer) {
  return observer.whenBecomesReadable().then([this, &observer] {
    for (LoopInbox::Task& task : inbox_->TakeAll()) task();
    return ServeInbox(observer);
  });
}

void EventLoop::Run(absl::FunctionRef<void()> body) {
  absl::Notification done;
  const bool posted = Post([&] {
    body();
    done.Notify();
  });
  KDN_CHECK(posted, "a closed event loop was used");
  done.WaitForNotification();
}

void EventLoop::RunAsync(absl::FunctionRef<kj::Promise<void>()> body) {
  absl::Notification done;
  kj::Own<kj::Promise<void>> running;
  Run([&] {
    running = kj::heap(body()
                           .catch_([](kj::Exception&&) {})
                           .then([&done] { done.Notify(); })
                           .eagerlyEvaluate(nullptr));
  });
  done.WaitForNotification();
  Run([&] { running = nullptr; });
}

void EventLoop::AddLanding(uint64_t id, std::unique_ptr<Landing> landing) {
  if (landing->lent) ++lent_;
  landings_.emplace(id, std::move(landing));
  expected_count_.store(landings_.size());
}

std::unique_ptr<EventLoop::Landing> EventLoop::TakeLanding(uint64_t id) {
  AssertOnLoop();
  const auto found = landings_.find(id);
  KDN_CHECK(found != landings_.end(), "an answer nobody expects");
  std::unique_ptr<Landing> landing = std::move(found->second);
  landings_.erase(found);
  expected_count_.store(landings_.size());
  landing->keep = nullptr;
  if (landing->lent && --lent_ == 0) {
    for (auto& waiter : idle_waiters_) waiter->fulfill();
    idle_waiters_.clear();
  }
  return landing;
}

kj::Promise<void> EventLoop::WhenNothingLent() {
  if (lent_ == 0) return kj::READY_NOW;
  auto paf = kj::newPromiseAndFulfiller<void>();
  idle_waiters_.push_back(kj::mv(paf.fulfiller));
  return kj::mv(paf.promise);
}

}  // namespace kdn::rpc
