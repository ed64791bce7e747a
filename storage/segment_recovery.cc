// How the segment log comes up: the directory is locked, the segments opened,
// and the index loaded, or rebuilt from the segments when it is missing or
// damaged.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kv/log.h"
#include "storage/disk_errors.h"
#include "storage/eviction_policy.h"
#include "storage/segment_log.h"
#include "storage/store_marker.h"

namespace kdn::storage {
namespace {

namespace fs = std::filesystem;

// Sequences of one run of the store lie above those of every run before.
constexpr int kEpochShift = 40;

// The number in "segment-00000017", nullopt for any other name.
std::optional<uint32_t> SegmentNumber(const std::string& name) {
  constexpr absl::string_view kPrefix = "segment-";
  if (!absl::StartsWith(name, kPrefix)) return std::nullopt;
  uint32_t number = 0;
  const char* begin = name.data() + kPrefix.size();
  const char* end = name.data() + name.size();
  const auto [at, error] = std::from_chars(begin, end, number);
  if (error != std::errc() || at != end) return std::nullopt;
  return number;
}

// Where the last byte of a file lies that was ever written: behind it a kill
// may have left space taken in advance. The size of the file where the file
// system does not tell the two apart.
off_t EndOfData(int fd, off_t size) {
  off_t end = 0;
  for (off_t data = 0; (data = lseek(fd, end, SEEK_DATA)) >= 0;) {
    end = lseek(fd, data, SEEK_HOLE);
    if (end < 0) return size;
  }
  return errno == ENXIO ? end : size;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SegmentLog>> SegmentLog::Open(Options options) {
  std::unique_ptr<SegmentLog> log(new SegmentLog(std::move(options)));
  for (absl::Status (SegmentLog::*step)() :
       {&SegmentLog::LockDirectory, &SegmentLog::OpenSegments,
        &SegmentLog::OpenIndex}) {
    if (absl::Status status = (log.get()->*step)(); !status.ok()) {
      return status;
    }
  }
  return log;
}

absl::Status SegmentLog::LockDirectory() {
  const fs::path directory(options_.directory);
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) {
    return DiskError(error.value(),
                     absl::StrCat("creating ", options_.directory));
  }
  lock_fd_ =
      open((directory / "LOCK").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_fd_ < 0) {
    return DiskError(errno,
                     absl::StrCat("opening a lock in ", options_.directory));
  }
  if (flock(lock_fd_, LOCK_EX | LOCK_NB) != 0) {
    return absl::UnavailableError(
        absl::StrCat("another process uses ", options_.directory,
                     ": give each node a data_dir of its own"));
  }
  absl::StatusOr<std::optional<StoreMarker>> marker =
      ReadStoreMarker(options_.directory);
  if (!marker.ok()) return marker.status();
  StoreMarker next = marker->value_or(StoreMarker{});
  if (!marker->has_value()) {
    std::random_device random;
    next.store_id = static_cast<uint64_t>(random()) << 32 | random();
  }
  ++next.epoch;
  store_id_ = next.store_id;
  {
    absl::MutexLock lock(&mutex_);
    next_sequence_ = next.epoch << kEpochShift;
  }
  return WriteStoreMarker(options_.directory, next);
}

absl::Status SegmentLog::OpenSegments() {
  std::error_code error;
  for (const fs::directory_entry& file :
       fs::directory_iterator(options_.directory, error)) {
    const std::optional<uint32_t> number =
        SegmentNumber(file.path().filename().string());
    if (!number) continue;
    absl::Status status = OpenSegmentThatIsThere(*number);
    if (!status.ok()) return status;
  }
  if (error) {
    return DiskError(error.value(),
                     absl::StrCat("listing ", options_.directory));
  }
  return absl::OkStatus();
}

absl::Status SegmentLog::OpenSegmentThatIsThere(uint32_t number) {
  absl::StatusOr<SegmentPtr> opened = OpenSegment(number, false);
  if (!opened.ok()) return opened.status();
  Segment& segment = **opened;
  struct stat info {};
  if (fstat(segment.fd, &info) != 0) {
    return DiskError(errno, absl::StrCat("reading ", segment.path));
  }
  // Whole pages: what a kill left behind the last one is no record.
  segment.end_at_start =
      static_cast<uint64_t>(EndOfData(segment.fd, info.st_size)) / kRecordPage *
      kRecordPage;
  Trim(segment, segment.end_at_start);
  // Written but not synced before a kill, a record would be taken for one
  // that a power loss leaves: what is found at a start is on disk for good.
  if (absl::Status status = SyncFile(segment); !status.ok()) return status;
  absl::MutexLock roll(&roll_);
  next_segment_ = std::max(next_segment_, number + 1);
  absl::MutexLock lock(&mutex_);
  segments_.emplace(number, *std::move(opened));
  return absl::OkStatus();
}

absl::Status SegmentLog::OpenIndex() {
  const std::string directory = absl::StrCat(options_.directory, "/index");
  absl::Status status = OpenIndexIn(directory);
  if (status.ok()) status = LoadIndex();
  if (status.ok()) status = index_->Sync();
  if (!absl::IsDataLoss(status)) return status;
  bool there = false;
  {
    absl::MutexLock lock(&mutex_);
    there = !segments_.empty();
  }
  if (there) {
    LogWarning("storage.index",
               absl::StrCat(directory, ": ", status.message(),
                            ": rebuilding it from the segments"));
  }
  index_.reset();
  if (status = DiskIndex::Destroy(directory); !status.ok()) return status;
  std::error_code error;
  fs::remove_all(directory, error);  // what RocksDB does not call its own
  status = OpenIndexIn(directory);
  if (!status.ok() && !absl::IsDataLoss(status)) return status;
  return Rebuild();
}

absl::Status SegmentLog::OpenIndexIn(const std::string& directory) {
  absl::StatusOr<std::unique_ptr<DiskIndex>> opened =
      DiskIndex::Open(directory);
  if (!opened.ok()) return opened.status();
  index_ = *std::move(opened);
  const absl::StatusOr<bool> whole = index_->IsWhole();
  if (!whole.ok()) return whole.status();
  // New, or left behind by a kill during a rebuild: it knows only a part.
  if (!*whole) return absl::DataLossError("index: was never completed");
  return absl::OkStatus();
}

absl::Status SegmentLog::LoadIndex() {
  std::vector<RecordHeader> lost;
  std::vector<PlacedRecord> found;
  std::map<uint32_t, SegmentPtr> segments;
  {
    absl::MutexLock lock(&mutex_);
    segments = segments_;
  }
  absl::Status status = index_->ForEach([&](const RecordHeader& record) {
    const auto segment = segments.find(record.segment);
    const uint64_t bytes = RecordBytes(record.payload_bytes);
    if (segment == segments.end() ||
        record.offset + bytes > segment->second->end_at_start) {
      lost.push_back(record);
      return;
    }
    found.push_back({{record.segment, record.offset},
                     bytes,
                     EvictionHashOf(record.key),
                     HeldAtStart(record)});
  });
  if (!status.ok()) return status;
  for (const RecordHeader& record : lost) {
    if (status = index_->Erase(record.shard, record.key); !status.ok()) {
      return status;
    }
  }
  absl::MutexLock lock(&mutex_);
  counters_ = Counters{};
  counters_.damaged = lost.size();
  // Loading may have begun before: it starts afresh.
  ResetPolicy();
  LoadPolicy(std::move(found));
  return absl::OkStatus();
}

bool SegmentLog::HeldAtStart(const RecordHeader& record) const {
  return (options_.held_at_start && options_.held_at_start(record)) ||
         (options_.holds && options_.holds(record.shard, record.key));
}

void SegmentLog::LoadPolicy(std::vector<PlacedRecord> records) {
  std::sort(records.begin(), records.end(),
            [](const PlacedRecord& a, const PlacedRecord& b) {
              return a.place < b.place;
            });
  for (const PlacedRecord& record : records) policy_->OnLive(record);
  policy_->CheckInvariants();
}

}  // namespace kdn::storage
