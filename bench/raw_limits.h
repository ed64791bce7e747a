#ifndef KDN_BENCH_RAW_LIMITS_H_
#define KDN_BENCH_RAW_LIMITS_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

// The limits of this machine, in GB/s. Benchmarks print the rates of the KDN
// next to them.
namespace kdn::bench {

// memcpy: `threads` threads copy a set of `set_bytes` in pieces of
// `piece_bytes`, again and again for a second.
absl::StatusOr<double> MemcpyGbps(size_t set_bytes, size_t piece_bytes,
                                  int threads);

// TCP over loopback: a child process writes and this process reads, in blocks
// of 1 MB, for a second. Both walk through `set_bytes` of memory. With a set of
// one block the data stays in the caches: the most that TCP can do. With the
// size of a real data set: the most that TCP can do with that set.
absl::StatusOr<double> TcpGbps(size_t set_bytes);
inline constexpr size_t kTcpBlockBytes = 1u << 20;

// The disk: a file that is written and read with O_DIRECT through io_uring.
class RawDisk {
 public:
  // Makes a nameless file of `file_bytes` in `directory`. Write and Read keep
  // `depth` blocks of `block_bytes` in flight.
  static absl::StatusOr<RawDisk> Open(const std::string& directory,
                                      uint64_t file_bytes, uint64_t block_bytes,
                                      int depth);
  RawDisk(RawDisk&& other) noexcept;
  ~RawDisk();

  absl::StatusOr<double> Write() const;  // the whole file, in order; GB/s
  absl::StatusOr<double> Read() const;  // the whole file, in random order; GB/s

 private:
  RawDisk(int fd, uint64_t blocks, uint64_t block_bytes, int depth)
      : fd_(fd), blocks_(blocks), block_bytes_(block_bytes), depth_(depth) {}
  int fd_;
  const uint64_t blocks_;
  const uint64_t block_bytes_;
  const int depth_;
};

}  // namespace kdn::bench

#endif  // KDN_BENCH_RAW_LIMITS_H_
