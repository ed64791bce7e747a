// How the segment log starts: it locks the directory, opens the segments and
// loads the index. A missing or damaged index is rebuilt from the segments.
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
#include "kv/host_memory.h"
#include "kv/invariants.h"
#include "kv/log.h"
#include "storage/disk_errors.h"
#include "storage/eviction_policy.h"
#include "storage/segment_log.h"
#include "storage/store_marker.h"

namespace kdn::storage {
namespace {

namespace fs = std::filesystem;

// A sequence is the number of the start, shifted by this, plus a count. So the
// sequences of one run lie above the sequences of every earlier run.
constexpr int kEpochShift = 40;

// No log has so many segments. A file with a larger number is none of a log's.
constexpr uint32_t kSegmentNumberMax = 4'000'000'000;

// The number in "segment-00000017", nullopt for any other name.
std::optional<uint32_t> SegmentNumber(const std::string& name) {
  constexpr absl::string_view kPrefix = "segment-";
  if (!absl::StartsWith(name, kPrefix)) return std::nullopt;
  uint32_t number = 0;
  const char* begin = name.data() + kPrefix.size();
  const char* end = name.data() + name.size();
  const auto [at, error] = std::from_chars(begin, end, number);
  if (error != std::errc() || at != end || number > kSegmentNumberMax ||
      name != SegmentName(number)) {
    return std::nullopt;
  }
  return number;
}

// Creates the directory, for its owner alone, unless it is there.
absl::Status MakeDirectory(const std::string& directory) {
  std::error_code error;
  const bool created = fs::create_directories(directory, error);
  if (error) {
    return DiskError(error.value(), absl::StrCat("creating ", directory));
  }
  if (created) fs::permissions(directory, fs::perms::owner_all, error);
  const fs::perms mode = fs::status(directory, error).permissions();
  if ((mode & (fs::perms::group_all | fs::perms::others_all)) !=
      fs::perms::none) {
    LogWarning("storage.directory",
               absl::StrCat(directory,
                            " is open to other users, and holds token ids and "
                            "KV in plaintext: run chmod -R go= ",
                            directory));
  }
  return absl::OkStatus();
}

// Where the last hole of a file begins, by the file system's map. Where the
// file system has no map, the answer is the size of the file.
off_t BeginOfLastHole(int fd, off_t size) {
  off_t end = 0;
  for (off_t data = 0; (data = lseek(fd, end, SEEK_DATA)) >= 0;) {
    end = lseek(fd, data, SEEK_HOLE);
    if (end < 0) return size;
  }
  return errno == ENXIO ? end : size;
}

// Whether a whole page of the file from this one on has a byte that is not
// zero.
absl::StatusOr<bool> HasBytesFrom(const Segment& segment, uint64_t page,
                                  uint64_t size) {
  constexpr uint64_t kRead = 1u << 20;
  const absl::StatusOr<PrivateMemory> memory = PrivateMemory::Create(kRead);
  if (!memory.ok()) return memory.status();
  const std::unique_ptr<BlockIo> io = MakePosixIo(kRead);
  const uint64_t end = size / kRecordPage * kRecordPage;
  for (uint64_t at = page; at < end; at += kRead) {
    const absl::Span<std::byte> bytes =
        memory->bytes().first(std::min(kRead, end - at));
    const absl::Span<std::byte> pieces[] = {bytes};
    if (absl::Status s = io->Read(segment.fd, at, pieces); !s.ok()) {
      return InFile(segment, s);
    }
    if (std::any_of(bytes.begin(), bytes.end(),
                    [](std::byte byte) { return byte != std::byte{0}; })) {
      return true;
    }
  }
  return false;
}

// The end of the last page that was ever written to the file. A kill may leave
// preallocated space behind it, which reads as zeros. Some file systems call
// bytes a hole that were written lately and have no block yet: then the whole
// file counts as written.
absl::StatusOr<uint64_t> EndOfData(const Segment& segment, uint64_t size) {
  const auto hole = static_cast<uint64_t>(
      BeginOfLastHole(segment.fd, static_cast<off_t>(size)));
  const uint64_t page = (hole + kRecordPage - 1) / kRecordPage * kRecordPage;
  const absl::StatusOr<bool> wrong = HasBytesFrom(segment, page, size);
  if (!wrong.ok()) return wrong.status();
  // A kill may leave a part of a page at the end. That part belongs to no
  // record.
  return (*wrong ? size : hole) / kRecordPage * kRecordPage;
}

// Whether a log could have put the record into the index.
bool MayBeIndexed(const RecordHeader& record) {
  return record.kind == RecordHeader::Kind::kObject &&
         record.offset % kRecordPage == 0;
}

bool EndsBefore(const RecordHeader& record, uint64_t end) {
  const uint64_t bytes = RecordBytes(record.payload_bytes);
  return bytes <= end && record.offset <= end - bytes;
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
  if (absl::Status status = MakeDirectory(options_.directory); !status.ok()) {
    return status;
  }
  lock_fd_ = open((directory / "LOCK").c_str(),
                  O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR);
  if (lock_fd_ < 0) {
    return DiskError(errno,
                     absl::StrCat("opening a lock in ", options_.directory));
  }
  if (flock(lock_fd_, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    if (error == EWOULDBLOCK) {
      return absl::UnavailableError(
          absl::StrCat("another process uses ", options_.directory,
                       ": give each node a data_dir of its own"));
    }
    return DiskError(error, absl::StrCat("locking ", options_.directory));
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
    std::error_code gone;
    if (file.symlink_status(gone).type() != fs::file_type::regular) {
      LogWarning("storage.segment",
                 absl::StrCat(file.path().string(),
                              " has the name of a segment but is not a regular "
                              "file: the disk tier leaves it alone"));
      // A fresh segment must not get this name.
      absl::MutexLock roll(&roll_);
      next_segment_ = std::max(next_segment_, *number + 1);
      continue;
    }
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
  const absl::StatusOr<uint64_t> end =
      EndOfData(segment, static_cast<uint64_t>(info.st_size));
  if (!end.ok()) return end.status();
  segment.end_at_start = *end;
  Trim(segment, segment.end_at_start);
  // A kill may leave records that were written and not synced. A partition
  // assumes that every record that is found at the start is synced.
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
  // DestroyDB leaves files that are not RocksDB's.
  std::error_code error;
  fs::remove_all(directory, error);
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
  // The index is new, or a kill ended its rebuild: records may be missing.
  if (!*whole) return absl::DataLossError("index: was never completed");
  return absl::OkStatus();
}

absl::Status SegmentLog::LoadIndex() {
  std::vector<RecordHeader> lost;
  std::vector<PlacedRecord> found;
  absl::Status impossible;
  std::map<uint32_t, SegmentPtr> segments;
  {
    absl::MutexLock lock(&mutex_);
    segments = segments_;
  }
  absl::Status status = index_->ForEach(
      [&](const RecordHeader& record, const RecordHeader& amended) {
        const auto segment = segments.find(record.segment);
        if (!MayBeIndexed(record)) {
          impossible = absl::DataLossError("index: an entry names no object");
        } else if (segment == segments.end() ||
                   !EndsBefore(record, segment->second->end_at_start)) {
          lost.push_back(record);
        } else {
          found.push_back({{record.segment, record.offset},
                           RecordBytes(record.payload_bytes),
                           EvictionHashOf(record.key),
                           HeldAtStart(amended)});
        }
      });
  status.Update(impossible);
  if (!status.ok()) return status;
  {
    absl::MutexLock lock(&mutex_);
    counters_ = Counters{};
    counters_.damaged = lost.size();
    // A rebuild loads a second time.
    ResetPolicy();
    status = LoadPolicy(std::move(found));
  }
  for (const RecordHeader& record : lost) {
    if (status.ok()) status = index_->Erase(record.shard, record.key);
  }
  return status;
}

bool SegmentLog::HeldAtStart(const RecordHeader& record) const {
  return (options_.held_at_start && options_.held_at_start(record)) ||
         (options_.holds && options_.holds(record.shard, record.key));
}

absl::Status SegmentLog::LoadPolicy(std::vector<PlacedRecord> records) {
  std::sort(records.begin(), records.end(),
            [](const PlacedRecord& a, const PlacedRecord& b) {
              return a.place < b.place;
            });
  RecordPlace end;
  for (const PlacedRecord& record : records) {
    if (record.place < end) {
      return absl::DataLossError(
          absl::StrCat("index: two records overlap in segment ", end.segment,
                       " before ", end.offset));
    }
    end = {record.place.segment, record.place.offset + record.bytes};
    policy_->OnLive(record);
  }
  KDN_DCHECK_INVARIANTS(*policy_);
  return absl::OkStatus();
}

}  // namespace kdn::storage
