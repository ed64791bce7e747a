#ifndef KDN_BENCH_RAW_LIMITS_H_
#define KDN_BENCH_RAW_LIMITS_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

// What this machine can do at all, in GB/s: the measures that every rate of the
// KDN is printed next to.
namespace kdn::bench {

// One thread copies `set_bytes` in pieces of `piece_bytes` to another place,
// again and again for a second.
double MemcpyGbps(size_t set_bytes, size_t piece_bytes);

// A process writes, this one reads, over TCP on loopback, in 1 MB blocks, for a
// second.
absl::StatusOr<double> TcpGbps();

struct DiskGbps {
  double write = 0;
  double read = 0;  // in random order
};
// O_DIRECT through io_uring in blocks of `block_bytes`, `depth` in flight, on a
// file of `file_bytes` in `directory`.
absl::StatusOr<DiskGbps> RawDiskGbps(const std::string& directory,
                                     uint64_t file_bytes, uint64_t block_bytes,
                                     int depth);

}  // namespace kdn::bench

#endif  // KDN_BENCH_RAW_LIMITS_H_
