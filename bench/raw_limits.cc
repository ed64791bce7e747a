#include "bench/raw_limits.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <liburing.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "kv/clock.h"
#include "kv/host_memory.h"

namespace kdn::bench {
namespace {

constexpr absl::Duration kRun = absl::Seconds(1);

absl::Status Errno(const char* what) {
  return absl::UnavailableError(absl::StrCat(what, ": ", strerror(errno)));
}

double Gbps(uint64_t bytes, absl::Duration took) {
  return static_cast<double>(bytes) / absl::ToDoubleSeconds(took) / 1e9;
}

// Memory of the kind that nodes use, with every page already touched.
absl::StatusOr<PrivateMemory> Touched(size_t bytes) {
  absl::StatusOr<PrivateMemory> memory = PrivateMemory::Create(bytes);
  if (!memory.ok()) return memory.status();
  std::fill(memory->bytes().begin(), memory->bytes().end(), std::byte{1});
  return memory;
}

// The offset of the next whole block of the set, or 0 behind the last block.
size_t NextBlock(size_t at, size_t set_bytes) {
  at += kTcpBlockBytes;
  return at + kTcpBlockBytes <= set_bytes ? at : 0;
}

// The child of TcpGbps: connects and writes until the reader hangs up.
[[noreturn]] void WriteForEver(uint16_t port, size_t set_bytes) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = port;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) !=
      0) {
    _exit(1);
  }
  const absl::StatusOr<PrivateMemory> set = Touched(set_bytes);
  if (!set.ok()) _exit(1);
  for (size_t at = 0;; at = NextBlock(at, set_bytes)) {
    if (send(fd, set->data() + at, kTcpBlockBytes, MSG_NOSIGNAL) <= 0) _exit(0);
  }
}

// Reads or writes the blocks of the file in the given order, `depth` blocks in
// flight. Returns GB/s.
absl::StatusOr<double> Sweep(int fd, bool writing,
                             const std::vector<uint64_t>& order,
                             uint64_t block_bytes, int depth) {
  io_uring ring;
  if (io_uring_queue_init(static_cast<unsigned>(depth), &ring, 0) != 0) {
    return Errno("io_uring");
  }
  const absl::StatusOr<PrivateMemory> memory =
      Touched(block_bytes * static_cast<uint64_t>(depth));
  if (!memory.ok()) return memory.status();
  std::vector<int> idle(depth);
  std::iota(idle.begin(), idle.end(), 0);
  absl::Status status;
  size_t next = 0;
  size_t done = 0;
  const absl::Time begin = SteadyNow();
  while (done < order.size() && status.ok()) {
    while (next < order.size() && !idle.empty()) {
      const int slot = idle.back();
      idle.pop_back();
      io_uring_sqe* sqe = io_uring_get_sqe(&ring);
      std::byte* at =
          memory->data() + block_bytes * static_cast<uint64_t>(slot);
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
  const absl::Duration took = SteadyNow() - begin;
  io_uring_queue_exit(&ring);
  if (!status.ok()) return status;
  return Gbps(order.size() * block_bytes, took);
}

}  // namespace

absl::StatusOr<double> MemcpyGbps(size_t set_bytes, size_t piece_bytes,
                                  int threads) {
  const absl::StatusOr<PrivateMemory> from = Touched(set_bytes);
  const absl::StatusOr<PrivateMemory> to = Touched(set_bytes);
  if (!from.ok()) return from.status();
  if (!to.ok()) return to.status();
  std::atomic<size_t> next{0};  // pieces taken, over all rounds
  const size_t pieces = (set_bytes + piece_bytes - 1) / piece_bytes;
  const absl::Time begin = SteadyNow();
  std::vector<std::thread> copying;
  for (int i = 0; i < threads; ++i) {
    copying.emplace_back([&] {
      while (SteadyNow() - begin < kRun) {
        const size_t at = next.fetch_add(1) % pieces * piece_bytes;
        std::memcpy(to->data() + at, from->data() + at,
                    std::min(piece_bytes, set_bytes - at));
      }
    });
  }
  for (std::thread& thread : copying) thread.join();
  return Gbps(next * piece_bytes, SteadyNow() - begin);
}

absl::StatusOr<double> TcpGbps(size_t set_bytes) {
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
  if (writer == 0) WriteForEver(address.sin_port, set_bytes);
  const int fd = accept(listener, nullptr, nullptr);
  close(listener);
  if (fd < 0) return Errno("accepting");
  const absl::StatusOr<PrivateMemory> set = Touched(set_bytes);
  if (!set.ok()) return set.status();
  uint64_t bytes = 0;
  const absl::Time begin = SteadyNow();
  for (size_t at = 0; SteadyNow() - begin < kRun;
       at = NextBlock(at, set_bytes)) {
    const ssize_t got = recv(fd, set->data() + at, kTcpBlockBytes, MSG_WAITALL);
    if (got <= 0) break;
    bytes += static_cast<uint64_t>(got);
  }
  const double rate = Gbps(bytes, SteadyNow() - begin);
  close(fd);
  waitpid(writer, nullptr, 0);
  return rate;
}

absl::StatusOr<RawDisk> RawDisk::Open(const std::string& directory,
                                      uint64_t file_bytes, uint64_t block_bytes,
                                      int depth) {
  const std::string path = directory + "/kdn-raw-disk";
  const int fd = open(path.c_str(),
                      O_RDWR | O_CREAT | O_TRUNC | O_DIRECT | O_CLOEXEC, 0600);
  if (fd < 0) return Errno(path.c_str());
  unlink(path.c_str());
  RawDisk disk(fd, file_bytes / block_bytes, block_bytes, depth);
  // The first write allocates the blocks, so that later rates are the disk's
  // and not the file system's.
  if (const absl::StatusOr<double> first = disk.Write(); !first.ok()) {
    return first.status();
  }
  return disk;
}

RawDisk::RawDisk(RawDisk&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      blocks_(other.blocks_),
      block_bytes_(other.block_bytes_),
      depth_(other.depth_) {}

RawDisk::~RawDisk() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<double> RawDisk::Write() const {
  std::vector<uint64_t> order(blocks_);
  std::iota(order.begin(), order.end(), uint64_t{0});
  return Sweep(fd_, true, order, block_bytes_, depth_);
}

absl::StatusOr<double> RawDisk::Read() const {
  std::vector<uint64_t> order(blocks_);
  std::iota(order.begin(), order.end(), uint64_t{0});
  std::shuffle(order.begin(), order.end(), std::mt19937(1));
  return Sweep(fd_, false, order, block_bytes_, depth_);
}

}  // namespace kdn::bench
