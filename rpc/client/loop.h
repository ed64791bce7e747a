#ifndef KDN_RPC_CLIENT_LOOP_H_
#define KDN_RPC_CLIENT_LOOP_H_

#include <kj/async-io.h>

#include <memory>
#include <optional>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace kdn::rpc {

// The KJ event loop of one thread. All clients that are made on the thread
// share it, and it ends with the last of them. It runs during blocking calls.
class ClientLoop {
 public:
  static std::shared_ptr<ClientLoop> OfThisThread();

  kj::AsyncIoProvider& io() { return *io_.provider; }
  void CheckThread() const;

  // The value of the promise, or the status of its exception. DEADLINE_EXCEEDED
  // when it takes longer than `timeout`; then the promise is cancelled.
  template <typename T>
  absl::StatusOr<T> Wait(kj::Promise<T> promise, absl::Duration timeout);
  absl::Status WaitVoid(kj::Promise<void> promise, absl::Duration timeout);

 private:
  ClientLoop() : io_(kj::setupAsyncIo()) {}
  kj::Promise<void> After(absl::Duration timeout);

  const std::thread::id thread_ = std::this_thread::get_id();
  kj::AsyncIoContext io_;
};

absl::Status LateAnswer(absl::Duration timeout);
absl::Status StatusOfException(const kj::Exception& exception);

template <typename T>
absl::StatusOr<T> ClientLoop::Wait(kj::Promise<T> promise,
                                   absl::Duration timeout) {
  CheckThread();
  return promise
      .then([](T value) -> absl::StatusOr<T> { return value; },
            [](kj::Exception&& broken) -> absl::StatusOr<T> {
              return StatusOfException(broken);
            })
      .exclusiveJoin(After(timeout).then(
          [timeout]() -> absl::StatusOr<T> { return LateAnswer(timeout); }))
      .wait(io_.waitScope);
}

}  // namespace kdn::rpc

#endif  // KDN_RPC_CLIENT_LOOP_H_
