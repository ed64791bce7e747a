#ifndef KDN_RPC_CONTROL_STREAM_H_
#define KDN_RPC_CONTROL_STREAM_H_

#include <kj/io.h>
#include <openssl/ssl.h>

#include <functional>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "delivery/control_network.h"

namespace kdn::rpc {

// Hangs up on a connection whose stream another thread uses. Thread-safe.
class HangUpHandle {
 public:
  explicit HangUpHandle(int fd) : fd_(fd) {}
  void HangUp();
  // The descriptor is about to be closed.
  void Forget();

 private:
  absl::Mutex mutex_;
  int fd_ ABSL_GUARDED_BY(mutex_);
};

// What the network wants to hear of a stream. Called on any thread.
struct StreamEvents {
  std::function<void()> greeted = [] {};
  std::function<void()> ended = [] {};
};

using SslPtr = std::unique_ptr<SSL, void (*)(SSL*)>;

// A connection in plaintext.
class SocketStream : public delivery::ControlStream {
 public:
  SocketStream(kj::AutoCloseFd fd, StreamEvents events);
  ~SocketStream() noexcept override;

  int fd() const override { return fd_.get(); }
  absl::StatusOr<size_t> Read(absl::Span<char> into) override;
  absl::StatusOr<size_t> Write(absl::Span<const char> bytes) override;
  size_t pending() const override { return 0; }
  void SetGreeted() override { events_.greeted(); }

  const std::shared_ptr<HangUpHandle>& handle() const { return handle_; }

 private:
  const kj::AutoCloseFd fd_;
  const std::shared_ptr<HangUpHandle> handle_;
  StreamEvents events_;
};

// A connection with TLS. REQUIRES: the handshake is complete.
class TlsStream final : public SocketStream {
 public:
  TlsStream(kj::AutoCloseFd fd, SslPtr ssl, StreamEvents events)
      : SocketStream(kj::mv(fd), std::move(events)), ssl_(std::move(ssl)) {}
  ~TlsStream() noexcept override = default;

  absl::StatusOr<size_t> Read(absl::Span<char> into) override;
  absl::StatusOr<size_t> Write(absl::Span<const char> bytes) override;
  size_t pending() const override {
    return static_cast<size_t>(SSL_pending(ssl_.get()));
  }

 private:
  absl::StatusOr<size_t> Result(int result) const;
  SslPtr ssl_;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_CONTROL_STREAM_H_
