#ifndef KDN_BENCH_RAW_LIMITS_H_
#define KDN_BENCH_RAW_LIMITS_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

// What this machine can do at all, in GB/s: the measures that every rate of the
// KDN is printed next to.
namespace kdn::bench {

// `threads` threads copy `set_bytes` in pieces of `piece_bytes` to another
// place, again and again for a second.
absl::StatusOr<double> MemcpyGbps(size_t set_bytes, size_t piece_bytes,
                                  int threads);

// A process writes, this one reads, over TCP on loopback, in 1 MB blocks, for a
// second. Each walks through `set_bytes` of memory: with one block, sent from
// and read into the caches, it is the most that TCP can do; with the set that
// is to be moved, the most it can do with that.
absl::StatusOr<double> TcpGbps(size_t set_bytes);
inline constexpr size_t kTcpBlockBytes = 1u << 20;

// A file moved with O_DIRECT through io_uring, some blocks in flight.
class RawDisk {
 public:
  // `depth` blocks of `block_bytes` in flight, on a nameless file of
  // `file_bytes` in `directory`.
  static absl::StatusOr<RawDisk> Open(const std::string& directory,
                                      uint64_t file_bytes, uint64_t block_bytes,
                                      int depth);
  RawDisk(RawDisk&& other) noexcept;
  ~RawDisk();

  absl::StatusOr<double> Write() const;  // all of it, GB/s
  absl::StatusOr<double> Read() const;   // all of it in random order

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
