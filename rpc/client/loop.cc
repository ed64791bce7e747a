#include "rpc/client/loop.h"

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "rpc/wire.h"

namespace kdn::rpc {

std::shared_ptr<ClientLoop> ClientLoop::OfThisThread() {
  thread_local std::weak_ptr<ClientLoop> loop;
  std::shared_ptr<ClientLoop> alive = loop.lock();
  if (alive == nullptr) {
    alive = std::shared_ptr<ClientLoop>(new ClientLoop());
    loop = alive;
  }
  return alive;
}

void ClientLoop::CheckThread() const {
  KDN_CHECK(std::this_thread::get_id() == thread_,
            "a client is used only by the thread that made it");
}

// Reads the clock, because the timer's time is that of the loop's last poll,
// which may be long ago on a thread that did other work.
kj::Promise<void> ClientLoop::After(absl::Duration timeout) {
  return io_.provider->getTimer().atTime(
      kj::systemPreciseMonotonicClock().now() +
      absl::ToInt64Microseconds(timeout) * kj::MICROSECONDS);
}

absl::Status ClientLoop::WaitVoid(kj::Promise<void> promise,
                                  absl::Duration timeout) {
  return Wait(promise.then([] { return 0; }), timeout).status();
}

absl::Status LateAnswer(absl::Duration timeout) {
  return absl::DeadlineExceededError(
      absl::StrCat("no answer within ", absl::FormatDuration(timeout)));
}

absl::Status StatusOfException(const kj::Exception& exception) {
  return FromException(exception);
}

}  // namespace kdn::rpc
