// Cases that a test of the disk tier cannot bring about: disks that fail in the
// middle of a call, and calls in an order that the test chooses.
#include "storage/segment_log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <functional>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "storage/arena.h"
#include "storage/disk_index.h"
#include "tests/storage/disk_fixture.h"

namespace {

// Called with the name of each file that this thread syncs, before the sync.
// Returns 0, or the errno with which the sync is to fail.
using SyncHook = std::function<int(const std::string& file)>;
thread_local const SyncHook* sync_hook = nullptr;

std::filesystem::path PathOf(int fd) {
  return std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd));
}

}  // namespace

// Replaces the C library's function: a test has no other way to see a sync.
extern "C" int fdatasync(int fd) {
  if (sync_hook != nullptr) {
    errno = (*sync_hook)(PathOf(fd).filename());
    if (errno != 0) return -1;
  }
  return static_cast<int>(syscall(SYS_fdatasync, fd));
}

// If set, the file system says that no file has data from here on.
thread_local off_t data_end = -1;

extern "C" off_t lseek(int fd, off_t offset, int whence) noexcept {
  if (data_end >= 0 && whence == SEEK_DATA && offset >= data_end) {
    errno = ENXIO;
    return -1;
  }
  if (data_end >= 0 && whence == SEEK_HOLE) return data_end;
  return static_cast<off_t>(syscall(SYS_lseek, fd, offset, whence));
}

// If not 0, the errno of all locks.
thread_local int lock_error = 0;

extern "C" int flock(int fd, int operation) noexcept {
  if (lock_error != 0) {
    errno = lock_error;
    return -1;
  }
  return static_cast<int>(syscall(SYS_flock, fd, operation));
}

namespace kdn::storage {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kRecords = 4;  // of MakeObject, in a full segment

// Sets the hook of this thread's syncs while it lives.
class ScopedSyncHook {
 public:
  explicit ScopedSyncHook(SyncHook hook) : hook_(std::move(hook)) {
    sync_hook = &hook_;
  }
  ~ScopedSyncHook() { sync_hook = nullptr; }

 private:
  const SyncHook hook_;
};

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
    if (go_on != nullptr && reads++ == waits_at) {
      reached.Notify();
      go_on->WaitForNotification();
    }
    return io_->Read(fd, offset, pieces);
  }

  bool writes_fail = false;
  std::string unreadable;  // a segment's file name
  int reads_failed = 0;
  // If set, the read with the number `waits_at` (the first read is 0) waits for
  // this notification.
  absl::Notification* go_on = nullptr;
  int waits_at = 0;
  int reads = 0;
  absl::Notification reached;

 private:
  const std::unique_ptr<BlockIo> io_ = MakePosixIo(1u << 20);
};

// While this object lives, the process can open one more file, and not two.
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
    log_ = nullptr;  // gives up the directory's lock
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
  absl::Status Amend(int i, int64_t expiry_unix_us) {
    RecordHeader object = HeaderOf(MakeObject(i).info, absl::ZeroDuration());
    object.expiry_unix_us = expiry_unix_us;
    return log_->Amend(object, /*sync=*/false);
  }
  // By ForEach; -1: the log does not have the object.
  int64_t ExpiryOf(int i) {
    int64_t expiry = -1;
    EXPECT_TRUE(log_->ForEach([&](const RecordHeader& record) {
                      if (record.key == MakeObject(i).info.key) {
                        expiry = record.expiry_unix_us;
                      }
                    })
                    .ok());
    return expiry;
  }
  // Opens the log anew, with an index that is rebuilt from the segments.
  void OpenWithoutIndex(SegmentLog::Options options) {
    log_ = nullptr;
    fs::remove_all(directory_.path() + "/index");
    Open(std::move(options));
  }
  // Appends objects, numbered from 0, until the next one needs an eviction.
  // Removes every second object if `removes`.
  void Fill(const SegmentLog::Options& options, bool removes) {
    const uint64_t record = RecordBytes(MakeObject(0).info.bytes);
    for (int i = 0;
         log_->counters().segment_bytes + record + options.segment_bytes <=
         options.capacity_bytes;
         ++i) {
      ASSERT_TRUE(Append(MakeObject(i)).ok());
      if (!removes || i % 2 == 0) continue;
      ASSERT_TRUE(Remove(i).ok());
    }
    ASSERT_EQ(log_->counters().evictions, 0u);
  }
  bool HasFile(const std::string& name) const {
    return fs::exists(directory_.path() + "/" + name);
  }
  // Fills three segments. The second holds the tombstone of object 0 and no
  // live record; object 0 lies dead in the first.
  void MakeASegmentWithOnlyATombstone() {
    AppendAll(0, kRecords + 1);
    ASSERT_TRUE(Remove(0).ok());
    AppendAll(kRecords + 1, 2 * kRecords);
    for (const int i : {4, 5, 6}) ASSERT_TRUE(Remove(i).ok());
    ASSERT_TRUE(HasFile(kThird));
  }
  static constexpr char kSecond[] = "segment-00000002";
  static constexpr char kThird[] = "segment-00000003";

  TempDirectory directory_;
  std::shared_ptr<Arena> arena_ = *Arena::Create(1u << 20);
  FaultyIo io_;
  std::unique_ptr<SegmentLog> log_;
};

TEST_F(SegmentLogTest, AnAmendmentChangesTheTermsOfTheIndexedVersionOnly) {
  Open(Options());
  EXPECT_TRUE(absl::IsNotFound(Amend(1, /*expiry_unix_us=*/7)));
  AppendAll(0, 2);
  TestObject other = MakeObject(1, /*version=*/2);
  EXPECT_TRUE(absl::IsNotFound(
      log_->Amend(HeaderOf(other.info, absl::ZeroDuration()), false)));
  ASSERT_TRUE(Amend(1, 7).ok());
  for (int run = 0; run < 2; ++run) {
    EXPECT_EQ(ExpiryOf(0), 0);
    EXPECT_EQ(ExpiryOf(1), 7);
    EXPECT_TRUE(Read(MakeObject(1)).ok());
    Open(Options());
  }
  ASSERT_TRUE(Append(other).ok());
  EXPECT_EQ(ExpiryOf(1), 0) << "another version, without a TTL";
  // A rebuilt index has the TTLs of the records.
  ASSERT_TRUE(Amend(0, 8).ok());
  OpenWithoutIndex(Options());
  EXPECT_EQ(ExpiryOf(0), 0);
}

TEST_F(SegmentLogTest, AMovedRecordHasItsAmendment) {
  // kBefore: the amendment comes before the cleaning. kMeanwhile: it comes when
  // the copy is written and the index does not point to it yet.
  enum class When { kBefore, kMeanwhile };
  for (const When when : {When::kBefore, When::kMeanwhile}) {
    SCOPED_TRACE(static_cast<int>(when));
    log_ = nullptr;
    fs::remove_all(directory_.path());
    Open(Options());
    AppendAll(0, kRecords + 1);
    ASSERT_TRUE(Amend(1, 7).ok());
    for (const int i : {0, 2, 3}) ASSERT_TRUE(Remove(i).ok());
    bool amended = when == When::kBefore;
    {
      const ScopedSyncHook hook([&](const std::string& file) {
        if (file != kSecond || std::exchange(amended, true)) return 0;
        EXPECT_TRUE(Amend(1, 9).ok());
        return 0;
      });
      EXPECT_TRUE(log_->CleanOne(io_).value_or(false));
    }
    EXPECT_TRUE(amended);
    EXPECT_FALSE(HasFile("segment-00000001"));
    const int64_t expiry = when == When::kBefore ? 7 : 9;
    for (int run = 0; run < 2; ++run) {
      EXPECT_EQ(ExpiryOf(1), expiry);
      EXPECT_TRUE(Read(MakeObject(1)).ok());
      Open(Options());
    }
    OpenWithoutIndex(Options());
    EXPECT_EQ(ExpiryOf(1), 7) << "the copy's page has it";
    EXPECT_TRUE(Read(MakeObject(1)).ok());
  }
}

// A kill may leave the record and its copy.
TEST_F(SegmentLogTest, ARebuildPrefersTheCopyOfARecord) {
  Open(Options());
  AppendAll(0, kRecords + 1);
  ASSERT_TRUE(Amend(1, 7).ok());
  for (const int i : {0, 2, 3}) ASSERT_TRUE(Remove(i).ok());
  const fs::path first = directory_.path() + "/segment-00000001";
  const fs::path saved = directory_.path() + "/saved";
  fs::copy_file(first, saved);
  EXPECT_TRUE(log_->CleanOne(io_).value_or(false));
  ASSERT_FALSE(fs::exists(first));
  log_ = nullptr;
  fs::rename(saved, first);
  OpenWithoutIndex(Options());
  EXPECT_EQ(ExpiryOf(1), 7);
  EXPECT_TRUE(Read(MakeObject(1)).ok());
}

TEST_F(SegmentLogTest, ARemovalHoldsEvenIfItsTombstoneCannotBeWritten) {
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

TEST_F(SegmentLogTest, ARemovalTriedAgainWritesTheTombstoneThatFailed) {
  Open(Options());
  AppendAll(0, 2);
  io_.writes_fail = true;
  EXPECT_TRUE(absl::IsUnavailable(Remove(0)));
  EXPECT_TRUE(absl::IsUnavailable(Remove(0)))
      << "the tombstone is still missing";
  io_.writes_fail = false;
  EXPECT_TRUE(Remove(0).ok());
  OpenWithoutIndex(Options());
  EXPECT_TRUE(absl::IsNotFound(Read(MakeObject(0)))) << "back from the dead";
  EXPECT_TRUE(Read(MakeObject(1)).ok());
}

TEST_F(SegmentLogTest, RewrittenTombstonesAreSyncedBeforeTheirSegmentGoes) {
  Open(Options());
  MakeASegmentWithOnlyATombstone();
  bool synced = false;
  {
    const ScopedSyncHook hook([&](const std::string& file) {
      synced = synced || (file == kThird && HasFile(kSecond));
      return 0;
    });
    EXPECT_TRUE(log_->CleanOne(io_).value_or(false));
  }
  EXPECT_TRUE(synced) << "a power loss would revive object 0";
  EXPECT_FALSE(HasFile(kSecond));
  OpenWithoutIndex(Options());
  EXPECT_TRUE(absl::IsNotFound(Read(MakeObject(0))));
}

TEST_F(SegmentLogTest, ASegmentStaysWhenItsTombstonesCannotBeKept) {
  enum class Failure { kWrite, kSync, kRead };
  for (const Failure failure :
       {Failure::kWrite, Failure::kSync, Failure::kRead}) {
    SCOPED_TRACE(static_cast<int>(failure));
    fs::remove_all(directory_.path());
    Open(Options());
    MakeASegmentWithOnlyATombstone();
    {
      const ScopedSyncHook hook([&](const std::string& file) {
        return failure == Failure::kSync && file == kThird ? EIO : 0;
      });
      io_.writes_fail = failure == Failure::kWrite;
      if (failure == Failure::kRead) io_.unreadable = kSecond;
      EXPECT_TRUE(absl::IsUnavailable(log_->CleanOne(io_).status()));
      EXPECT_FALSE(log_->CleanOne(io_).value_or(true)) << "passed over";
    }
    io_.writes_fail = false;
    io_.unreadable.clear();
    EXPECT_TRUE(HasFile(kSecond));
    log_->CheckInvariants();
    OpenWithoutIndex(Options());
    EXPECT_TRUE(absl::IsNotFound(Read(MakeObject(0))));
    EXPECT_TRUE(Read(MakeObject(1)).ok());
    log_ = nullptr;
  }
}

TEST_F(SegmentLogTest, TombstonesOfAnEarlierRunAreCounted) {
  SegmentLog::Options options = Options();
  options.capacity_bytes = 16 * options.segment_bytes;
  options.clean_below_live = 0;  // cleaned for their tombstones alone
  Open(options);
  AppendAll(0, 10);
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(Remove(i).ok());
  Open(options);
  while (log_->CleanOne(io_).value_or(false)) {
  }
  EXPECT_GT(log_->counters().cleaned, 0u)
      << "six pages of tombstones are more than 1/64 of the capacity";
  log_->CheckInvariants();
  OpenWithoutIndex(options);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Read(MakeObject(i)).ok(), i >= 6) << i;
}

TEST_F(SegmentLogTest, EachCallOfCleanOneCountsTheTombstonesOfOneSegment) {
  Open(Options());
  AppendAll(0, 3 * kRecords);
  Open(Options());
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(log_->CleanOne(io_).value_or(false)) << i;
  }
  EXPECT_FALSE(log_->CleanOne(io_).value_or(true));
  EXPECT_EQ(log_->counters().cleaned, 0u);
}

TEST_F(SegmentLogTest, AnEvictionDoesNotWaitForACountOfTombstones) {
  SegmentLog::Options options = Options();
  options.capacity_bytes = 6 * options.segment_bytes;
  Open(options);
  Fill(options, /*removes=*/true);
  Open(options);
  FaultyIo slow;
  absl::Notification go_on;
  slow.go_on = &go_on;
  std::thread cleaner([&] { log_->CleanOne(slow).status().IgnoreError(); });
  slow.reached.WaitForNotification();
  absl::Notification appended;
  std::thread writer([&] {
    EXPECT_TRUE(Append(MakeObject(99)).ok());
    appended.Notify();
  });
  EXPECT_TRUE(appended.WaitForNotificationWithTimeout(absl::Seconds(20)));
  EXPECT_FALSE(HasFile("segment-00000001")) << "counted and evicted";
  go_on.Notify();
  writer.join();
  cleaner.join();
  log_->CheckInvariants();
}

TEST_F(SegmentLogTest, ACopyOfARemovedRecordDoesNotOutliveTheTombstone) {
  Open(Options());
  AppendAll(0, kRecords + 1);
  for (const int i : {0, 1, 2}) ASSERT_TRUE(Remove(i).ok());
  FaultyIo slow;
  absl::Notification go_on;
  slow.go_on = &go_on;
  slow.waits_at = 1;  // the copy of record 3; read 0 is of its header
  std::thread cleaner([&] {
    // Ends the cleaning as soon as the copy is written, as a kill would.
    const ScopedSyncHook hook(
        [](const std::string& file) { return file == kThird ? EIO : 0; });
    log_->CleanOne(slow).status().IgnoreError();
  });
  slow.reached.WaitForNotification();
  ASSERT_TRUE(Remove(3).ok());            // its tombstone: second segment
  AppendAll(kRecords + 1, 2 * kRecords);  // opens the third
  go_on.Notify();
  cleaner.join();
  AppendAll(2 * kRecords, 3 * kRecords);  // opens the fourth
  for (const int i : {4, 5, 6}) ASSERT_TRUE(Remove(i).ok());
  while (log_->CleanOne(io_).value_or(false)) {
  }
  ASSERT_FALSE(HasFile(kSecond)) << "the tombstone has gone";
  OpenWithoutIndex(Options());
  EXPECT_TRUE(absl::IsNotFound(Read(MakeObject(3)))) << "back from the dead";
}

// Each case is a damaged index entry of record 1, which lies behind record 0.
TEST_F(SegmentLogTest, AnIndexThatNamesImpossiblePlacesIsRebuilt) {
  const uint64_t bytes = RecordBytes(MakeObject(0).info.bytes);
  struct Case {
    const char* what;
    uint64_t offset;
    RecordHeader::Kind kind;
    uint64_t rebuilt;
  };
  for (const Case& damage :
       {Case{"overlap", kRecordPage, RecordHeader::Kind::kObject, 3},
        Case{"same place", 0, RecordHeader::Kind::kObject, 3},
        Case{"part of a page", bytes + 7, RecordHeader::Kind::kObject, 3},
        Case{"a tombstone", bytes, RecordHeader::Kind::kTombstone, 3},
        Case{"behind the end", UINT64_MAX - bytes + 1,
             RecordHeader::Kind::kObject, 0}}) {
    SCOPED_TRACE(damage.what);
    fs::remove_all(directory_.path());
    Open(Options());
    AppendAll(0, 3);
    log_ = nullptr;
    {
      auto index = *DiskIndex::Open(directory_.path() + "/index");
      const ObjectInfo info = MakeObject(1).info;
      RecordHeader record = **index->Get(info.shard, info.key);
      record.offset = damage.offset;
      record.kind = damage.kind;
      ASSERT_TRUE(index->Put(record).ok());
    }
    Open(Options());
    EXPECT_EQ(log_->counters().rebuilt, damage.rebuilt);
    EXPECT_EQ(log_->counters().objects, damage.rebuilt > 0 ? 3u : 2u);
    EXPECT_EQ(Read(MakeObject(1)).ok(), damage.rebuilt > 0);
    log_->CheckInvariants();
    log_ = nullptr;
  }
}

TEST_F(SegmentLogTest, AnEvictionSeesAHoldThatComesAfterItsDecision) {
  SegmentLog::Options options = Options();
  options.capacity_bytes = 5 * options.segment_bytes;
  // The write asks, then the decision to evict asks twice.
  int asked = 0;
  options.holds = [&](ShardId, const ChunkKey& key) {
    return key == MakeObject(0).info.key && ++asked > 3;
  };
  Open(options);
  AppendAll(0, 5 * kRecords);
  EXPECT_GT(log_->counters().evictions, 0u);
  EXPECT_GT(asked, 3);
  EXPECT_TRUE(Read(MakeObject(0)).ok()) << "a pin of it was acknowledged";
  EXPECT_TRUE(absl::IsNotFound(Read(MakeObject(1))));
  log_->CheckInvariants();
}

TEST_F(SegmentLogTest, ASegmentThatAnEvictionClosedIsTrimmed) {
  SegmentLog::Options options = Options();
  const uint64_t record = options.segment_bytes / kRecords;
  options.capacity_bytes = (4 * kRecords + 2) * record;
  std::set<ChunkKey> held;
  for (int i = 0; i < 13; ++i) held.insert(MakeObject(i).info.key);
  options.holds = [&](ShardId, const ChunkKey& key) {
    return held.contains(key);
  };
  Open(options);
  AppendAll(0, 14);  // the fourth segment is half full; record 13 may go
  io_.unreadable = "segment-00000004";
  EXPECT_TRUE(absl::IsUnavailable(Append(MakeObject(14))));
  const ObjectInfo released = MakeObject(0).info;
  held.erase(released.key);
  ASSERT_TRUE(log_->HeldChanged(released.shard, released.key).ok());
  ASSERT_TRUE(Append(MakeObject(14)).ok());  // into the fifth segment
  EXPECT_EQ(fs::file_size(directory_.path() + "/segment-00000004"), 2 * record);
}

TEST_F(SegmentLogTest, AFailedCreationOfASegmentDoesNotBlockTheNext) {
  Open(Options());
  AppendAll(0, kRecords);
  {
    // Enough for the file, but not for the sync of its directory.
    const OneFileLeft limit;
    EXPECT_TRUE(absl::IsUnavailable(Append(MakeObject(10))));
    EXPECT_TRUE(absl::IsUnavailable(Append(MakeObject(10))));
  }
  EXPECT_EQ(log_->counters().segments, 1u);
  const absl::Status status = Append(MakeObject(10));
  EXPECT_TRUE(status.ok()) << status;
  Open(Options());
  EXPECT_EQ(log_->counters().segments, 2u) << "the failed ones left no file";
  EXPECT_TRUE(Read(MakeObject(10)).ok());
}

// Holds objects 1 to 3, which keeps their segment from being evicted.
bool HoldsFirstObjects(ShardId, const ChunkKey& key) {
  return key == MakeObject(1).info.key || key == MakeObject(2).info.key ||
         key == MakeObject(3).info.key;
}

TEST_F(SegmentLogTest, ARemovalHoldsAfterItsObjectIsStoredAgainAndEvicted) {
  SegmentLog::Options options = Options();
  options.capacity_bytes = 11 * options.segment_bytes;
  bool evicted = false;
  options.on_evicted = [&](const RecordHeader& record) {
    evicted = evicted || record.key == MakeObject(0).info.key;
  };
  // The first segment stays, and with it the record that is removed below.
  options.holds = HoldsFirstObjects;
  Open(options);
  AppendAll(0, kRecords);
  AppendAll(4, 5);  // the second segment: a tombstone, and objects 4 to 6
  ASSERT_TRUE(Remove(0).ok());
  AppendAll(5, 7);
  ASSERT_TRUE(Append(MakeObject(0, 2)).ok());  // into the third segment
  AppendAll(7, 10);
  for (int i = 4; i < 7; ++i) ASSERT_TRUE(Remove(i).ok());
  const absl::StatusOr<bool> cleaned = log_->CleanOne(io_);
  ASSERT_TRUE(cleaned.ok() && *cleaned) << cleaned.status();
  for (int i = 10; !evicted; ++i) {
    ASSERT_LT(i, 100) << "never evicted";
    ASSERT_TRUE(Append(MakeObject(i)).ok());
  }
  for (int i = 1; i < 4; ++i) ASSERT_TRUE(Read(MakeObject(i)).ok());
  OpenWithoutIndex(options);
  EXPECT_TRUE(absl::IsNotFound(Read(MakeObject(0)))) << "back from the dead";
  EXPECT_TRUE(Read(MakeObject(1)).ok());
}

TEST_F(SegmentLogTest, ARemovalHoldsAfterTheNewestRecordIsEvicted) {
  SegmentLog::Options options = Options();
  options.capacity_bytes = 6 * options.segment_bytes;
  bool evicted = false;
  options.on_evicted = [&](const RecordHeader& record) {
    evicted = evicted || record.key == MakeObject(0).info.key;
  };
  // The first segment stays, and with it the first record of object 0.
  options.holds = HoldsFirstObjects;
  Open(options);
  AppendAll(0, kRecords);
  ASSERT_TRUE(Append(MakeObject(0, 2)).ok());  // into the second segment
  for (int i = kRecords; !evicted; ++i) {
    ASSERT_LT(i, 100) << "never evicted";
    ASSERT_TRUE(Append(MakeObject(i)).ok());
  }
  ASSERT_TRUE(HasFile("segment-00000001"));
  ASSERT_TRUE(Remove(0).ok());
  OpenWithoutIndex(options);
  EXPECT_TRUE(absl::IsNotFound(Read(MakeObject(0)))) << "back from the dead";
  EXPECT_TRUE(Read(MakeObject(1)).ok());
}

TEST_F(SegmentLogTest, WritesThatFailDoNotEmptyAFullTier) {
  auto options = Options();
  options.capacity_bytes = 8 * options.segment_bytes;
  Open(options);
  Fill(options, /*removes=*/false);
  const uint64_t bytes = log_->counters().segment_bytes;
  io_.writes_fail = true;
  for (int i = 0; i < 50; ++i) EXPECT_FALSE(Append(MakeObject(100 + i)).ok());
  EXPECT_LE(log_->counters().evictions, kRecords) << "more than a segment";
  EXPECT_LE(log_->counters().segment_bytes, bytes);
  log_->CheckInvariants();
  io_.writes_fail = false;
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(Append(MakeObject(100 + i)).ok());
  OpenWithoutIndex(options);
  EXPECT_TRUE(Read(MakeObject(149)).ok());
}

// A durable store that failed must not be back at the next start.
TEST_F(SegmentLogTest, AnAppendWhoseFileCannotBeSyncedLeavesNothing) {
  Open(Options());
  {
    const ScopedSyncHook hook([](const std::string& file) {
      return file.starts_with("segment-") ? EIO : 0;
    });
    EXPECT_FALSE(Append(MakeObject(1), /*sync=*/true).ok());
  }
  EXPECT_TRUE(absl::IsNotFound(Read(MakeObject(1))));
  OpenWithoutIndex(Options());
  EXPECT_TRUE(absl::IsNotFound(Read(MakeObject(1))));
}

TEST_F(SegmentLogTest, AnAppendWhoseIndexCannotBeSyncedLeavesNothing) {
  Open(Options());
  AppendAll(0, 1);
  {
    const ScopedSyncHook hook([](const std::string& file) {
      return file.ends_with(".log") ? EIO : 0;  // RocksDB's write-ahead log
    });
    EXPECT_FALSE(Append(MakeObject(1), /*sync=*/true).ok());
    EXPECT_FALSE(Append(MakeObject(0), /*sync=*/true).ok());
  }
  log_->CheckInvariants();
  for (int run = 0; run < 3; ++run) {
    SCOPED_TRACE(run);
    EXPECT_TRUE(Read(MakeObject(0)).ok()) << "was on disk before";
    // NOT_FOUND, or DATA_LOSS if RocksDB takes no change before a restart.
    EXPECT_FALSE(Read(MakeObject(1)).ok());
    if (run == 0) Open(Options());
    if (run == 1) OpenWithoutIndex(Options());
  }
  EXPECT_TRUE(Append(MakeObject(1), /*sync=*/true).ok());
}

TEST_F(SegmentLogTest, RecordsThatTheFileSystemCallsAHoleAreKept) {
  Open(Options());
  AppendAll(0, 3);
  log_ = nullptr;
  data_end = static_cast<off_t>(RecordBytes(MakeObject(0).info.bytes));
  Open(Options());
  data_end = -1;
  for (int run = 0; run < 2; ++run) {
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(Read(MakeObject(i)).ok()) << i;
    Open(Options());
  }
}

TEST_F(SegmentLogTest, AFileSystemWithoutLocksIsNamedAsTheReason) {
  lock_error = ENOSYS;
  const auto log = SegmentLog::Open(Options());
  lock_error = 0;
  ASSERT_FALSE(log.ok());
  const std::string why(log.status().message());
  EXPECT_EQ(why.find("another process"), std::string::npos) << why;
  EXPECT_NE(why.find("errno 38"), std::string::npos) << why;
  EXPECT_NE(why.find("local file system"), std::string::npos) << why;
}

TEST_F(SegmentLogTest, SegmentsFoundAtTheStartAreSynced) {
  Open(Options());
  AppendAll(0, kRecords + 1);
  std::multiset<std::string> synced;
  {
    const ScopedSyncHook hook([&](const std::string& file) {
      synced.insert(file);
      return 0;
    });
    Open(Options());
  }
  EXPECT_EQ(synced.count("segment-00000001"), 1u);
  EXPECT_EQ(synced.count("segment-00000002"), 1u);
}

TEST_F(SegmentLogTest, CleaningPassesOverASegmentThatCannotBeRead) {
  Open(Options());
  AppendAll(0, 2 * kRecords + 1);
  for (const int i : {0, 1, 2, 4, 5, 6}) ASSERT_TRUE(Remove(i).ok());
  io_.unreadable = "segment-00000001";
  const auto clean = [&] { return log_->CleanOne(io_); };
  EXPECT_TRUE(clean().value_or(false)) << "the second segment can be cleaned";
  EXPECT_EQ(io_.reads_failed, 1);
  EXPECT_FALSE(clean().value_or(true))
      << "the first segment is not tried again";
  EXPECT_EQ(io_.reads_failed, 1);
  AppendAll(10, 10 + kRecords);  // until a new segment is begun
  EXPECT_TRUE(absl::IsUnavailable(clean().status()))
      << "the first segment is tried again, in vain";
  EXPECT_EQ(io_.reads_failed, 2);
  ASSERT_TRUE(Remove(3).ok());
  EXPECT_TRUE(clean().value_or(false))
      << "the first segment has no live record to read";
  EXPECT_EQ(io_.reads_failed, 2);
  EXPECT_EQ(log_->counters().cleaned, 2u);
}

TEST_F(SegmentLogTest, AnAppendThatFailsForItsTombstonesEvictsNothing) {
  SegmentLog::Options options = Options();
  options.segment_bytes *= 4;
  options.capacity_bytes = 10 * options.segment_bytes;
  // The first segment cannot go without a write, because object 0 is held. The
  // other segments have tombstones to keep.
  options.holds = [](ShardId, const ChunkKey& key) {
    return key == MakeObject(0).info.key;
  };
  Open(options);
  Fill(options, /*removes=*/true);
  io_.writes_fail = true;
  EXPECT_TRUE(absl::IsUnavailable(Append(MakeObject(999))));
  EXPECT_EQ(log_->counters().evictions, 0u);
  log_->CheckInvariants();
  io_.writes_fail = false;
  const absl::Status status = Append(MakeObject(999));
  EXPECT_TRUE(status.ok()) << "the disk has recovered: " << status;
}

TEST_F(SegmentLogTest, AnAppendThatFailsForItsHeldRecordsEvictsNothing) {
  SegmentLog::Options options = Options();
  options.segment_bytes *= 4;
  options.capacity_bytes = 6 * options.segment_bytes;
  // The last record of each segment is held.
  std::set<ChunkKey> held;
  for (int i = 4 * kRecords - 1; i < 100; i += 4 * kRecords) {
    held.insert(MakeObject(i).info.key);
  }
  options.holds = [&](ShardId, const ChunkKey& key) {
    return held.contains(key);
  };
  Open(options);
  Fill(options, /*removes=*/false);
  io_.writes_fail = true;
  EXPECT_TRUE(absl::IsUnavailable(Append(MakeObject(999))));
  EXPECT_EQ(log_->counters().evictions, 0u);
  io_.writes_fail = false;
  const absl::Status status = Append(MakeObject(999));
  EXPECT_TRUE(status.ok()) << "the disk has recovered: " << status;
  EXPECT_GT(log_->counters().evictions, 0u);
  EXPECT_TRUE(Read(MakeObject(4 * kRecords - 1)).ok()) << "held";
  log_->CheckInvariants();
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
  EXPECT_TRUE(Read(MakeObject(3)).ok())
      << "it lies in the segment that is cleaned";
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

TEST_F(SegmentLogTest, EvictionPassesOverASegmentThatCannotBeRead) {
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
