// What the disk tier's threads cannot be made to meet on purpose: disks that
// fail in the middle, and calls in an order of the test's choosing.
#include "storage/segment_log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "storage/arena.h"
#include "tests/storage/disk_fixture.h"

namespace {

// Names of the files that this thread syncs while it is set.
thread_local std::multiset<std::string>* synced_files = nullptr;

std::filesystem::path PathOf(int fd) {
  return std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd));
}

}  // namespace

// In the C library's stead: what is synced cannot be seen in any other way.
extern "C" int fdatasync(int fd) {
  if (synced_files != nullptr) synced_files->insert(PathOf(fd).filename());
  return static_cast<int>(syscall(SYS_fdatasync, fd));
}

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
    if (go_on != nullptr && !reached.HasBeenNotified()) {
      reached.Notify();
      go_on->WaitForNotification();
    }
    return io_->Read(fd, offset, pieces);
  }

  bool writes_fail = false;
  std::string unreadable;  // a segment's file name
  int reads_failed = 0;
  // The first read waits for `go_on`, if there is one.
  absl::Notification* go_on = nullptr;
  absl::Notification reached;

 private:
  const std::unique_ptr<BlockIo> io_ = MakePosixIo(1u << 20);
};

// While it lives this process can open one more file at a time, no two.
class OneFileLeft {
 public:
  OneFileLeft() {
    const int next = open("/dev/null", O_RDONLY);
    EXPECT_GE(next, 0);
    close(next);
    EXPECT_EQ(getrlimit(RLIMIT_NOFILE, &before_), 0);
    rlimit limit = before_;
    limit.rlim_cur = static_cast<rlim_t>(next) + 1;
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  }
  ~OneFileLeft() { EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &before_), 0); }

 private:
  rlimit before_{};
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
    return log_->Append(HeaderOf(object.info, absl::ZeroDuration()),
                        block->padded(), sync, io_);
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

TEST_F(SegmentLogTest, ASegmentThatCouldNotBeMadeStandsInNobodysWay) {
  Open(Options());
  AppendAll(0, kRecords);
  {
    const OneFileLeft limit;  // the file can be made, not its name synced
    EXPECT_TRUE(absl::IsUnavailable(Append(MakeObject(10))));
    EXPECT_TRUE(absl::IsUnavailable(Append(MakeObject(10))));
  }
  EXPECT_EQ(log_->counters().segments, 1u);
  const absl::Status status = Append(MakeObject(10));
  EXPECT_TRUE(status.ok()) << status;
  Open(Options());
  EXPECT_EQ(log_->counters().segments, 2u) << "none was left behind";
  EXPECT_TRUE(Read(MakeObject(10)).ok());
}

TEST_F(SegmentLogTest, ARemovalOutlivesTheCleaningAndEvictionOfWhatFollowed) {
  SegmentLog::Options options = Options();
  options.capacity_bytes = 11 * options.segment_bytes;
  bool evicted = false;
  options.on_evicted = [&](const RecordHeader& record) {
    evicted = evicted || record.key == MakeObject(0).info.key;
  };
  // The first segment stays, and the removed record with it.
  options.holds = [](ShardId, const ChunkKey& key) {
    return key == MakeObject(1).info.key || key == MakeObject(2).info.key ||
           key == MakeObject(3).info.key;
  };
  Open(options);
  AppendAll(0, kRecords);
  AppendAll(4, 5);  // the second segment: a tombstone, and what is to go
  ASSERT_TRUE(Remove(0).ok());
  AppendAll(5, 7);
  ASSERT_TRUE(Append(MakeObject(0, 2)).ok());  // the third: put again
  AppendAll(7, 10);
  for (int i = 4; i < 7; ++i) ASSERT_TRUE(Remove(i).ok());
  const absl::StatusOr<bool> cleaned = log_->CleanOne(io_);
  ASSERT_TRUE(cleaned.ok() && *cleaned) << cleaned.status();
  for (int i = 10; !evicted; ++i) {
    ASSERT_LT(i, 100) << "never evicted";
    ASSERT_TRUE(Append(MakeObject(i)).ok());
  }
  for (int i = 1; i < 4; ++i) ASSERT_TRUE(Read(MakeObject(i)).ok());
  log_ = nullptr;
  std::filesystem::remove_all(directory_.path() + "/index");
  Open(options);
  EXPECT_TRUE(absl::IsNotFound(Read(MakeObject(0)))) << "back from the dead";
  EXPECT_TRUE(Read(MakeObject(1)).ok());
}

TEST_F(SegmentLogTest, WhatIsFoundAtAStartIsSyncedThen) {
  Open(Options());
  AppendAll(0, kRecords + 1);
  std::multiset<std::string> synced;
  synced_files = &synced;
  Open(Options());
  synced_files = nullptr;
  EXPECT_EQ(synced.count("segment-00000001"), 1u);
  EXPECT_EQ(synced.count("segment-00000002"), 1u);
}

TEST_F(SegmentLogTest, CleaningPassesOverWhatCannotBeRead) {
  Open(Options());
  AppendAll(0, 2 * kRecords + 1);
  for (const int i : {0, 1, 2, 4, 5, 6}) ASSERT_TRUE(Remove(i).ok());
  io_.unreadable = "segment-00000001";
  const auto clean = [&] { return log_->CleanOne(io_); };
  EXPECT_TRUE(clean().value_or(false)) << "the second can be";
  EXPECT_EQ(io_.reads_failed, 1);
  EXPECT_FALSE(clean().value_or(true)) << "the first is not tried again";
  EXPECT_EQ(io_.reads_failed, 1);
  AppendAll(10, 10 + kRecords);  // until a new segment is begun
  EXPECT_TRUE(absl::IsUnavailable(clean().status())) << "no better";
  EXPECT_EQ(io_.reads_failed, 2);
  ASSERT_TRUE(Remove(3).ok());
  EXPECT_TRUE(clean().value_or(false)) << "nothing of it has to be read";
  EXPECT_EQ(io_.reads_failed, 2);
  EXPECT_EQ(log_->counters().cleaned, 2u);
}

TEST_F(SegmentLogTest, ReadsAndWritesGoOnWhileASegmentIsCleaned) {
  Open(Options());
  AppendAll(0, 2 * kRecords + 1);
  for (const int i : {0, 1, 2}) ASSERT_TRUE(Remove(i).ok());
  FaultyIo slow;
  absl::Notification go_on;
  slow.go_on = &go_on;
  std::thread cleaner([&] {
    const absl::StatusOr<bool> cleaned = log_->CleanOne(slow);
    EXPECT_TRUE(cleaned.ok() && *cleaned) << cleaned.status();
  });
  slow.reached.WaitForNotification();
  EXPECT_TRUE(Read(MakeObject(3)).ok()) << "of the segment that is cleaned";
  EXPECT_TRUE(Read(MakeObject(kRecords)).ok());
  AppendAll(20, 20 + 2 * kRecords);  // through a fresh segment
  EXPECT_TRUE(Remove(20).ok());
  EXPECT_TRUE(Append(MakeObject(3, 2)).ok()) << "replaced while it is moved";
  go_on.Notify();
  cleaner.join();
  EXPECT_TRUE(Read(MakeObject(3, 2)).ok());
  log_->CheckInvariants();
  EXPECT_EQ(log_->counters().cleaned, 1u);
}

TEST_F(SegmentLogTest, EvictionPassesOverWhatCannotBeRead) {
  SegmentLog::Options options = Options();
  options.capacity_bytes =
      (4 * kRecords + 2) * options.segment_bytes / kRecords;
  options.holds = [](ShardId, const ChunkKey& key) {
    return key == MakeObject(0).info.key;
  };
  Open(std::move(options));
  AppendAll(0, 3 * kRecords);
  io_.unreadable = "segment-00000001";
  const TestObject large = MakeObject(99, 1, 30000);
  const absl::Status status = Append(large);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(io_.reads_failed, 1);
  io_.unreadable.clear();
  EXPECT_TRUE(Read(MakeObject(0)).ok()) << "held";
  EXPECT_TRUE(absl::IsNotFound(Read(MakeObject(kRecords))));
  EXPECT_TRUE(Read(large).ok());
}

}  // namespace
}  // namespace kdn::storage
