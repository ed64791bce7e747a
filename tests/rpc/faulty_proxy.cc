#include "tests/rpc/faulty_proxy.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "kv/clock.h"
#include "rpc/listener.h"

namespace kdn::rpc {

int ConnectLocal(uint16_t port) {
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(port);
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof(at)) != 0) {
    close(fd);
    return -1;
  }
  return fd;
}

std::vector<uint8_t> Exchange(int fd, const std::vector<uint8_t>& bytes,
                              int quiet_ms) {
  size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t n =
        send(fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) break;
    sent += static_cast<size_t>(n);
  }
  std::vector<uint8_t> got;
  for (;;) {
    pollfd wait{fd, POLLIN, 0};
    if (poll(&wait, 1, quiet_ms) <= 0) return got;
    uint8_t buffer[4096];
    const ssize_t n = recv(fd, buffer, sizeof(buffer), 0);
    if (n <= 0) return got;
    got.insert(got.end(), buffer, buffer + n);
  }
}

FaultyProxy::FaultyProxy(uint16_t server_port, Fault fault)
    : server_port_(server_port),
      fault_(fault),
      listening_(*ListenTcp("127.0.0.1", 0)),
      port_(PortOf(listening_)),
      acceptor_([this] { Accept(); }) {}

FaultyProxy::~FaultyProxy() {
  shutdown(listening_, SHUT_RDWR);
  acceptor_.join();
  close(listening_);
  std::vector<std::thread> pumps;
  {
    absl::MutexLock lock(&mutex_);
    for (int fd : sockets_) shutdown(fd, SHUT_RDWR);
    pumps.swap(pumps_);
  }
  for (std::thread& pump : pumps) pump.join();
  absl::MutexLock lock(&mutex_);
  for (int fd : sockets_) close(fd);
}

void FaultyProxy::Accept() {
  for (;;) {
    pollfd wait{listening_, POLLIN, 0};
    if (poll(&wait, 1, -1) < 0) return;
    const int client = accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) return;
    const int server = ConnectLocal(server_port_);
    absl::MutexLock lock(&mutex_);
    sockets_.push_back(client);
    if (server < 0) {
      shutdown(client, SHUT_RDWR);
      continue;
    }
    sockets_.push_back(server);
    pumps_.emplace_back([=, this] { Pump(client, server, false); });
    pumps_.emplace_back([=, this] { Pump(server, client, true); });
  }
}

bool FaultyProxy::SendPaced(int to, const uint8_t* bytes, size_t count) {
  constexpr size_t kPiece = 8u << 10;
  while (count > 0) {
    const size_t piece = std::min(count, kPiece);
    if (const double rate = bytes_per_second_; rate > 0) {
      absl::Time turn;
      {
        absl::MutexLock lock(&mutex_);
        turn = std::max(SteadyNow(), free_at_);
        free_at_ = turn + absl::Seconds(static_cast<double>(piece) / rate);
      }
      absl::SleepFor(turn - SteadyNow());
    }
    if (send(to, bytes, piece, MSG_NOSIGNAL) < 0) return false;
    bytes += piece;
    count -= piece;
  }
  return true;
}

void FaultyProxy::Pump(int from, int to, bool faulty) {
  std::vector<uint8_t> buffer(64u << 10);
  uint64_t passed = 0;
  for (;;) {
    const ssize_t n = recv(from, buffer.data(), buffer.size(), 0);
    if (n <= 0) break;
    uint64_t end = passed + static_cast<uint64_t>(n);
    if (faulty && fault_.flip_bit_at && *fault_.flip_bit_at >= passed &&
        *fault_.flip_bit_at < end) {
      buffer[*fault_.flip_bit_at - passed] ^= 0x10;
    }
    if (faulty && fault_.cut_at && end > *fault_.cut_at) end = *fault_.cut_at;
    const bool stalled = faulty && fault_.stall_at && end > *fault_.stall_at;
    if (!stalled && faulty && !SendPaced(to, buffer.data(), end - passed)) {
      break;
    }
    if (!stalled && !faulty) {
      send(to, buffer.data(), end - passed, MSG_NOSIGNAL);
    }
    if (faulty && fault_.cut_at && end == *fault_.cut_at) break;
    passed = end;
  }
  shutdown(to, SHUT_RDWR);
  shutdown(from, SHUT_RDWR);
}

}  // namespace kdn::rpc
