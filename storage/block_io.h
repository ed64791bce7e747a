#ifndef KDN_STORAGE_BLOCK_IO_H_
#define KDN_STORAGE_BLOCK_IO_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace kdn::storage {

// Moves runs of bytes between a file and memory, in blocks. REQUIRES: for a
// file that is open with O_DIRECT, offsets, lengths and addresses are multiples
// of a page. Thread-compatible: each disk thread has a BlockIo of its own.
class BlockIo {
 public:
  virtual ~BlockIo() = default;
  // Writes the pieces one after another, from `offset` on. RESOURCE_EXHAUSTED
  // when the file system is full, UNAVAILABLE for other errors. After an error
  // the bytes in this part of the file are undefined.
  virtual absl::Status Write(
      int fd, uint64_t offset,
      absl::Span<const absl::Span<const std::byte>> pieces) = 0;
  // Fills the pieces with the bytes from `offset` on. DATA_LOSS when the file
  // ends before the last piece is full, UNAVAILABLE for other errors.
  virtual absl::Status Read(int fd, uint64_t offset,
                            absl::Span<const absl::Span<std::byte>> pieces) = 0;
};

// Uses io_uring, with `depth` blocks of about `block_bytes` in flight. Null
// where the kernel refuses io_uring.
std::unique_ptr<BlockIo> MakeUringIo(int depth, uint64_t block_bytes);
// Uses preadv and pwritev, one block at a time.
std::unique_ptr<BlockIo> MakePosixIo(uint64_t block_bytes);

}  // namespace kdn::storage

#endif  // KDN_STORAGE_BLOCK_IO_H_
