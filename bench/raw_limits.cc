#include "bench/raw_limits.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <liburing.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace kdn::bench {
namespace {

constexpr absl::Duration kRun = absl::Seconds(1);

absl::Status Errno(const char* what) {
  return absl::UnavailableError(absl::StrCat(what, ": ", strerror(errno)));
}

double Gbps(uint64_t bytes, absl::Duration took) {
  return static_cast<double>(bytes) / absl::ToDoubleSeconds(took) / 1e9;
}

// The child of TcpGbps: connects and writes until the reader hangs up.
[[noreturn]] void WriteForEver(uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = port;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) !=
      0) {
    _exit(1);
  }
  std::vector<char> block(1 << 20, 'x');
  while (send(fd, block.data(), block.size(), MSG_NOSIGNAL) > 0) {
  }
  _exit(0);
}

// Moves every block of the file once, `order` at a time `depth` in flight.
absl::StatusOr<double> Sweep(int fd, bool writing,
                             const std::vector<uint64_t>& order,
                             uint64_t block_bytes, int depth) {
  io_uring ring;
  if (io_uring_queue_init(static_cast<unsigned>(depth), &ring, 0) != 0) {
    return Errno("io_uring");
  }
  void* memory = mmap(nullptr, block_bytes * depth, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) return Errno("mmap");
  std::vector<int> idle(depth);
  std::iota(idle.begin(), idle.end(), 0);
  absl::Status status;
  size_t next = 0;
  size_t done = 0;
  const absl::Time begin = absl::Now();
  while (done < order.size() && status.ok()) {
    while (next < order.size() && !idle.empty()) {
      const int slot = idle.back();
      idle.pop_back();
      io_uring_sqe* sqe = io_uring_get_sqe(&ring);
      char* at = static_cast<char*>(memory) + block_bytes * slot;
      const auto bytes = static_cast<unsigned>(block_bytes);
      if (writing) {
        io_uring_prep_write(sqe, fd, at, bytes, order[next] * block_bytes);
      } else {
        io_uring_prep_read(sqe, fd, at, bytes, order[next] * block_bytes);
      }
      sqe->user_data = static_cast<uint64_t>(slot);
      ++next;
    }
    io_uring_submit_and_wait(&ring, 1);
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(&ring, &cqe) == 0) {
      if (cqe->res != static_cast<int>(block_bytes)) {
        errno = cqe->res < 0 ? -cqe->res : EIO;
        status = Errno(writing ? "writing" : "reading");
      }
      idle.push_back(static_cast<int>(cqe->user_data));
      io_uring_cqe_seen(&ring, cqe);
      ++done;
    }
  }
  const absl::Duration took = absl::Now() - begin;
  io_uring_queue_exit(&ring);
  munmap(memory, block_bytes * depth);
  if (!status.ok()) return status;
  return Gbps(order.size() * block_bytes, took);
}

}  // namespace

double MemcpyGbps(size_t set_bytes, size_t piece_bytes) {
  std::vector<char> from(set_bytes, 1);
  std::vector<char> to(set_bytes, 2);
  uint64_t bytes = 0;
  const absl::Time begin = absl::Now();
  while (absl::Now() - begin < kRun) {
    for (size_t at = 0; at < set_bytes; at += piece_bytes) {
      std::memcpy(&to[at], &from[at], std::min(piece_bytes, set_bytes - at));
    }
    bytes += set_bytes;
  }
  return Gbps(bytes, absl::Now() - begin);
}

absl::StatusOr<double> TcpGbps() {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (listener < 0 || bind(listener, generic, length) != 0 ||
      listen(listener, 1) != 0 ||
      getsockname(listener, generic, &length) != 0) {
    return Errno("listening");
  }
  const pid_t writer = fork();
  if (writer == 0) WriteForEver(address.sin_port);
  const int fd = accept(listener, nullptr, nullptr);
  close(listener);
  if (fd < 0) return Errno("accepting");
  std::vector<char> block(1 << 20);
  uint64_t bytes = 0;
  const absl::Time begin = absl::Now();
  while (absl::Now() - begin < kRun) {
    const ssize_t got = read(fd, block.data(), block.size());
    if (got <= 0) break;
    bytes += static_cast<uint64_t>(got);
  }
  const double rate = Gbps(bytes, absl::Now() - begin);
  close(fd);
  waitpid(writer, nullptr, 0);
  return rate;
}

absl::StatusOr<DiskGbps> RawDiskGbps(const std::string& directory,
                                     uint64_t file_bytes, uint64_t block_bytes,
                                     int depth) {
  const std::string path = directory + "/kdn-raw-disk";
  const int fd =
      open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_DIRECT, 0600);
  if (fd < 0) return Errno(path.c_str());
  unlink(path.c_str());
  std::vector<uint64_t> order(file_bytes / block_bytes);
  std::iota(order.begin(), order.end(), uint64_t{0});
  absl::StatusOr<double> write = Sweep(fd, true, order, block_bytes, depth);
  std::shuffle(order.begin(), order.end(), std::mt19937(1));
  absl::StatusOr<double> read = Sweep(fd, false, order, block_bytes, depth);
  close(fd);
  if (!write.ok()) return write.status();
  if (!read.ok()) return read.status();
  return DiskGbps{*write, *read};
}

}  // namespace kdn::bench
