// What the disk tier's threads cannot be made to meet on purpose: disks that
// fail in the middle, and calls in an order of the test's choosing.
#include "storage/segment_log.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <utility>

#include "storage/arena.h"
#include "tests/storage/disk_fixture.h"

namespace kdn::storage {
namespace {

constexpr uint64_t kRecords = 4;  // of MakeObject's, in a segment

// Fails the reads of one segment, and all writes, when told to.
class FaultyIo final : public BlockIo {
 public:
  absl::Status Write(
      int fd, uint64_t offset,
      absl::Span<const absl::Span<const std::byte>> pieces) override {
    if (writes_fail) return absl::UnavailableError("an I/O error");
    return io_->Write(fd, offset, pieces);
  }
  absl::Status Read(int fd, uint64_t offset,
                    absl::Span<const absl::Span<std::byte>> pieces) override {
    if (PathOf(fd).filename() == unreadable) {
      ++reads_failed;
      return absl::UnavailableError("an I/O error");
    }
    return io_->Read(fd, offset, pieces);
  }

  bool writes_fail = false;
  std::string unreadable;  // a segment's file name
  int reads_failed = 0;

 private:
  static std::filesystem::path PathOf(int fd) {
    return std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd));
  }
  const std::unique_ptr<BlockIo> io_ = MakePosixIo(1u << 20);
};

class SegmentLogTest : public testing::Test {
 protected:
  SegmentLog::Options Options() {
    SegmentLog::Options options;
    options.directory = directory_.path();
    options.capacity_bytes = 64u << 20;
    options.segment_bytes = kRecords * RecordBytes(MakeObject(0).info.bytes);
    return options;
  }
  void Open(SegmentLog::Options options) {
    log_ = nullptr;  // before another one locks the directory
    auto log = SegmentLog::Open(std::move(options));
    ASSERT_TRUE(log.ok()) << log.status();
    log_ = *std::move(log);
  }
  absl::Status Append(const TestObject& object, bool sync = false) {
    auto block = *arena_->Allocate(object.info.bytes);
    std::copy(object.bytes.begin(), object.bytes.end(), block->bytes().begin());
    return log_->Append(object.info, block->padded(), sync, io_);
  }
  void AppendAll(int from, int to) {
    for (int i = from; i < to; ++i) ASSERT_TRUE(Append(MakeObject(i)).ok());
  }
  absl::Status Read(const TestObject& object) {
    auto block = *arena_->Allocate(object.info.bytes);
    return log_->Read(object.info, block->padded(), io_);
  }
  absl::Status Remove(int i) {
    const ObjectInfo info = MakeObject(i).info;
    return log_->Remove(info.shard, info.key, io_);
  }

  TempDirectory directory_;
  std::shared_ptr<Arena> arena_ = *Arena::Create(1u << 20);
  FaultyIo io_;
  std::unique_ptr<SegmentLog> log_;
};

TEST_F(SegmentLogTest, ARemovalHoldsThoughItsTombstoneCannotBeWritten) {
  Open(Options());
  AppendAll(0, 2);
  io_.writes_fail = true;
  EXPECT_TRUE(absl::IsUnavailable(Remove(0)));
  io_.writes_fail = false;
  for (int run = 0; run < 2; ++run) {
    EXPECT_TRUE(absl::IsNotFound(Read(MakeObject(0)))) << run;
    EXPECT_TRUE(Read(MakeObject(1)).ok()) << run;
    Open(Options());
  }
}

}  // namespace
}  // namespace kdn::storage
