#include "rpc/control/stream.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "rpc/control/handshake.h"

namespace kdn::rpc {
namespace {

absl::StatusOr<size_t> ResultOf(ssize_t count) {
  if (count > 0) return static_cast<size_t>(count);
  if (count == 0) {
    return absl::UnavailableError("the peer closed the connection");
  }
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return 0;
  return absl::UnavailableError(
      absl::StrCat("the connection broke: ", strerror(errno)));
}

int LengthOf(size_t bytes) {
  return static_cast<int>(
      std::min<size_t>(bytes, std::numeric_limits<int>::max()));
}

}  // namespace

void HangUpHandle::HangUp() {
  absl::MutexLock lock(&mutex_);
  if (fd_ >= 0) shutdown(fd_, SHUT_RDWR);
}

void HangUpHandle::Forget() {
  absl::MutexLock lock(&mutex_);
  fd_ = -1;
}

SocketStream::SocketStream(kj::AutoCloseFd fd, StreamEvents events)
    : fd_(kj::mv(fd)),
      handle_(std::make_shared<HangUpHandle>(fd_.get())),
      events_(std::move(events)) {}

SocketStream::~SocketStream() noexcept {
  handle_->Forget();
  events_.ended();
}

absl::StatusOr<size_t> SocketStream::Read(absl::Span<char> into) {
  if (into.empty()) return 0;
  return ResultOf(recv(fd(), into.data(), into.size(), 0));
}

absl::StatusOr<size_t> SocketStream::Write(absl::Span<const char> bytes) {
  if (bytes.empty()) return 0;
  return ResultOf(send(fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL));
}

absl::StatusOr<size_t> TlsStream::Read(absl::Span<char> into) {
  if (into.empty()) return 0;
  ERR_clear_error();
  return Result(SSL_read(ssl_.get(), into.data(), LengthOf(into.size())));
}

absl::StatusOr<size_t> TlsStream::Write(absl::Span<const char> bytes) {
  if (bytes.empty()) return 0;
  ERR_clear_error();
  return Result(SSL_write(ssl_.get(), bytes.data(), LengthOf(bytes.size())));
}

absl::StatusOr<size_t> TlsStream::Result(int result) const {
  if (result > 0) return static_cast<size_t>(result);
  const int error = SSL_get_error(ssl_.get(), result);
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return 0;
  return SslError(*ssl_, error, "the TLS connection ended");
}

}  // namespace kdn::rpc
