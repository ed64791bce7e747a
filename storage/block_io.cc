#include "storage/block_io.h"

#include <liburing.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "storage/disk_errors.h"
#include "storage/record.h"

namespace kdn::storage {
namespace {

// One I/O: a place in the file, and the memory in the form of preadv and
// pwritev.
struct Block {
  uint64_t offset = 0;
  uint64_t bytes = 0;
  std::vector<iovec> memory;
};

// Cuts the pieces into equal blocks of about `about_bytes`. A record is a page
// longer than its payload, so blocks of a fixed size would often leave a single
// page, and an I/O of a single page costs as much as an I/O of a block.
template <typename Byte>
std::vector<Block> CutIntoBlocks(uint64_t offset,
                                 absl::Span<const absl::Span<Byte>> pieces,
                                 uint64_t about_bytes) {
  uint64_t bytes = 0;
  for (absl::Span<Byte> piece : pieces) bytes += piece.size();
  const uint64_t count =
      std::max<uint64_t>(1, (bytes + about_bytes / 2) / about_bytes);
  const uint64_t pages = (bytes + kRecordPage - 1) / kRecordPage;
  const uint64_t block_bytes = (pages + count - 1) / count * kRecordPage;
  std::vector<Block> blocks;
  for (absl::Span<Byte> piece : pieces) {
    while (!piece.empty()) {
      if (blocks.empty() || blocks.back().bytes == block_bytes) {
        blocks.push_back(Block{offset, 0, {}});
      }
      Block& block = blocks.back();
      const size_t take =
          std::min<uint64_t>(piece.size(), block_bytes - block.bytes);
      block.memory.push_back(iovec{const_cast<std::byte*>(piece.data()), take});
      block.bytes += take;
      offset += take;
      piece.remove_prefix(take);
    }
  }
  return blocks;
}

absl::Status ErrorOf(int error, const char* what, uint64_t offset) {
  return DiskError(error, absl::StrCat(what, " at ", offset));
}

// Drops the bytes that have been moved from the front of the block.
void Advance(Block& block, uint64_t moved) {
  block.offset += moved;
  block.bytes -= moved;
  while (moved > 0) {
    iovec& front = block.memory.front();
    const uint64_t part = std::min<uint64_t>(moved, front.iov_len);
    front.iov_base = static_cast<char*>(front.iov_base) + part;
    front.iov_len -= part;
    moved -= part;
    if (front.iov_len == 0) block.memory.erase(block.memory.begin());
  }
}

// Takes the result of a system call for the block: an error, or progress.
absl::Status OnMoved(Block& block, int64_t result, bool writing) {
  const char* what = writing ? "writing" : "reading";
  if (result < 0) {
    if (result == -EINTR || result == -EAGAIN) return absl::OkStatus();
    return ErrorOf(static_cast<int>(-result), what, block.offset);
  }
  if (result == 0) {
    if (writing) return ErrorOf(ENOSPC, what, block.offset);
    return absl::DataLossError(
        absl::StrCat("the segment ends at ", block.offset));
  }
  Advance(block, static_cast<uint64_t>(result));
  return absl::OkStatus();
}

class PosixIo final : public BlockIo {
 public:
  explicit PosixIo(uint64_t block_bytes) : block_bytes_(block_bytes) {}

  absl::Status Write(
      int fd, uint64_t offset,
      absl::Span<const absl::Span<const std::byte>> pieces) override {
    return Run(fd, CutIntoBlocks(offset, pieces, block_bytes_), true);
  }
  absl::Status Read(int fd, uint64_t offset,
                    absl::Span<const absl::Span<std::byte>> pieces) override {
    return Run(fd, CutIntoBlocks(offset, pieces, block_bytes_), false);
  }

 private:
  static absl::Status Run(int fd, std::vector<Block> blocks, bool writing) {
    for (Block& block : blocks) {
      while (block.bytes > 0) {
        const auto at = static_cast<off_t>(block.offset);
        const int parts = static_cast<int>(block.memory.size());
        const ssize_t moved = writing
                                  ? pwritev(fd, block.memory.data(), parts, at)
                                  : preadv(fd, block.memory.data(), parts, at);
        if (absl::Status status =
                OnMoved(block, moved < 0 ? -errno : moved, writing);
            !status.ok()) {
          return status;
        }
      }
    }
    return absl::OkStatus();
  }
  const uint64_t block_bytes_;
};

class UringIo final : public BlockIo {
 public:
  UringIo(int depth, uint64_t block_bytes)
      : depth_(depth), block_bytes_(block_bytes) {}
  ~UringIo() override {
    if (open_) io_uring_queue_exit(&ring_);
  }
  bool Open() {
    open_ = io_uring_queue_init(static_cast<unsigned>(depth_), &ring_, 0) == 0;
    return open_;
  }

  absl::Status Write(
      int fd, uint64_t offset,
      absl::Span<const absl::Span<const std::byte>> pieces) override {
    return Run(fd, CutIntoBlocks(offset, pieces, block_bytes_), true);
  }
  absl::Status Read(int fd, uint64_t offset,
                    absl::Span<const absl::Span<std::byte>> pieces) override {
    return Run(fd, CutIntoBlocks(offset, pieces, block_bytes_), false);
  }

 private:
  void Submit(int fd, Block& block, bool writing) {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    KDN_CHECK(sqe != nullptr, "no more is submitted than the ring holds");
    const auto parts = static_cast<unsigned>(block.memory.size());
    if (writing) {
      io_uring_prep_writev(sqe, fd, block.memory.data(), parts, block.offset);
    } else {
      io_uring_prep_readv(sqe, fd, block.memory.data(), parts, block.offset);
    }
    io_uring_sqe_set_data(sqe, &block);
  }

  // Returns when no block is in flight, also after an error: the caller may
  // then free the memory.
  absl::Status Run(int fd, std::vector<Block> blocks, bool writing) {
    absl::Status status;
    size_t next = 0;
    int in_flight = 0;
    while (in_flight > 0 || (status.ok() && next < blocks.size())) {
      while (status.ok() && next < blocks.size() && in_flight < depth_) {
        Submit(fd, blocks[next++], writing);
        ++in_flight;
      }
      const int submitted = io_uring_submit_and_wait(&ring_, 1);
      if (submitted < 0 && submitted != -EINTR) {
        KDN_CHECK(submitted == -EAGAIN || submitted == -EBUSY,
                  "io_uring refuses a ring it has accepted");
      }
      io_uring_cqe* cqe = nullptr;
      while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
        Block& block = *static_cast<Block*>(io_uring_cqe_get_data(cqe));
        const int result = cqe->res;
        io_uring_cqe_seen(&ring_, cqe);
        --in_flight;
        status.Update(OnMoved(block, result, writing));
        if (status.ok() && block.bytes > 0) {  // continues a short transfer
          Submit(fd, block, writing);
          ++in_flight;
        }
      }
    }
    return status;
  }

  const int depth_;
  const uint64_t block_bytes_;
  io_uring ring_{};
  bool open_ = false;
};

}  // namespace

std::unique_ptr<BlockIo> MakeUringIo(int depth, uint64_t block_bytes) {
  auto io = std::make_unique<UringIo>(depth, block_bytes);
  if (!io->Open()) return nullptr;
  return io;
}

std::unique_ptr<BlockIo> MakePosixIo(uint64_t block_bytes) {
  return std::make_unique<PosixIo>(block_bytes);
}

}  // namespace kdn::storage
