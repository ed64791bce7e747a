#ifndef KDN_TESTS_RPC_CONTROL_RAW_SOCKET_H_
#define KDN_TESTS_RPC_CONTROL_RAW_SOCKET_H_

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace kdn {

inline sockaddr_in Loopback(uint16_t port) {
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(port);
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return at;
}

// One end of a connection, which sends any bytes.
class RawSocket {
 public:
  // Takes over a connected descriptor.
  static std::unique_ptr<RawSocket> Of(int fd) {
    return std::unique_ptr<RawSocket>(new RawSocket(Descriptor{fd}));
  }
  // Connects to a port of this host.
  explicit RawSocket(uint16_t port)
      : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const sockaddr_in at = Loopback(port);
    EXPECT_EQ(connect(fd_, reinterpret_cast<const sockaddr*>(&at), sizeof(at)),
              0);
  }
  ~RawSocket() { close(fd_); }
  RawSocket(const RawSocket&) = delete;
  RawSocket& operator=(const RawSocket&) = delete;

  void Send(absl::string_view bytes) const {
    EXPECT_EQ(send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  // The next bytes of the other end; empty once it has hung up, nullopt if it
  // sends nothing for 10 s.
  std::optional<std::string> Receive() const {
    pollfd waiting{fd_, POLLIN, 0};
    char buffer[4096];
    if (poll(&waiting, 1, 10'000) != 1) return std::nullopt;
    const ssize_t got = recv(fd_, buffer, sizeof(buffer), 0);
    return std::string(buffer, got > 0 ? static_cast<size_t>(got) : 0);
  }
  // Reads until the other end hangs up. False if it does not.
  bool SeesTheEnd() const {
    std::optional<std::string> bytes = Receive();
    while (bytes && !bytes->empty()) bytes = Receive();
    return bytes.has_value();
  }
  // The other end has neither hung up nor sent anything that was not received.
  bool IsOpen() const {
    char byte;
    return recv(fd_, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
  }

 private:
  struct Descriptor {
    int fd;
  };
  explicit RawSocket(Descriptor connected) : fd_(connected.fd) {}
  const int fd_;
};

// Listens at a port of this host.
class RawListener {
 public:
  explicit RawListener(uint16_t port)
      : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const int one = 1;
    setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    const sockaddr_in at = Loopback(port);
    EXPECT_EQ(bind(fd_, reinterpret_cast<const sockaddr*>(&at), sizeof(at)), 0);
    EXPECT_EQ(listen(fd_, 8), 0);
  }
  ~RawListener() { close(fd_); }
  RawListener(const RawListener&) = delete;
  RawListener& operator=(const RawListener&) = delete;

  uint16_t port() const {
    sockaddr_in at{};
    socklen_t length = sizeof(at);
    getsockname(fd_, reinterpret_cast<sockaddr*>(&at), &length);
    return ntohs(at.sin_port);
  }
  // The next connection; null when there is none for a minute.
  std::unique_ptr<RawSocket> Accept() const {
    pollfd waiting{fd_, POLLIN, 0};
    if (poll(&waiting, 1, 60'000) != 1) return nullptr;
    return RawSocket::Of(accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC));
  }

 private:
  const int fd_;
};

}  // namespace kdn

#endif  // KDN_TESTS_RPC_CONTROL_RAW_SOCKET_H_
