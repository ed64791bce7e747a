#ifndef KDN_STORAGE_BLOCK_IO_H_
#define KDN_STORAGE_BLOCK_IO_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace kdn::storage {

// Moves whole runs of bytes between a file and memory, many blocks at a time.
// Offsets, lengths and addresses are multiples of a page where the file is open
// with O_DIRECT. Thread-compatible: one per disk thread.
class BlockIo {
 public:
  virtual ~BlockIo() = default;
  // Writes the pieces one behind another from `offset`. RESOURCE_EXHAUSTED when
  // the file system is full, UNAVAILABLE for other errors; what then lies there
  // is undefined.
  virtual absl::Status Write(
      int fd, uint64_t offset,
      absl::Span<const absl::Span<const std::byte>> pieces) = 0;
  // Fills the pieces from `offset`. DATA_LOSS when the file ends before that.
  virtual absl::Status Read(int fd, uint64_t offset,
                            absl::Span<const absl::Span<std::byte>> pieces) = 0;
};

// io_uring with `depth` blocks of `block_bytes` in flight; null where the
// kernel refuses it.
std::unique_ptr<BlockIo> MakeUringIo(int depth, uint64_t block_bytes);
// pread and pwrite, block by block.
std::unique_ptr<BlockIo> MakePosixIo(uint64_t block_bytes);

}  // namespace kdn::storage

#endif  // KDN_STORAGE_BLOCK_IO_H_
