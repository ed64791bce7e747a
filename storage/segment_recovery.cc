// How the segment log comes up: the directory is locked, the segments opened,
// and the index loaded, or rebuilt from the segments when it is missing or
// damaged.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kv/check.h"
#include "kv/crc32c.h"
#include "kv/host_memory.h"
#include "storage/segment_log.h"

namespace kdn::storage {
namespace {

namespace fs = std::filesystem;

constexpr char kMarkerName[] = "STORE";
constexpr char kMarkerMagic[] = "kdn-store-1";
// Sequences of one run of the store lie above those of every run before.
constexpr int kEpochShift = 40;

absl::Status ErrnoStatus(const std::string& what) {
  const std::string message = absl::StrCat(what, ": ", strerror(errno));
  return errno == ENOSPC ? absl::ResourceExhaustedError(message)
                         : absl::UnavailableError(message);
}

struct Marker {
  uint64_t store_id = 0;
  uint64_t epoch = 0;
};

// Nullopt when there is none; FAILED_PRECONDITION when it is something else's.
absl::StatusOr<std::optional<Marker>> ReadMarker(const fs::path& path) {
  std::ifstream file(path);
  if (!file) return std::nullopt;
  std::string magic;
  Marker marker;
  if (!(file >> magic >> marker.store_id >> marker.epoch) ||
      magic != kMarkerMagic) {
    return absl::FailedPreconditionError(absl::StrCat(
        path.string(), " is not a marker of this store's format (",
        kMarkerMagic, "): move the directory away or choose another"));
  }
  return marker;
}

absl::Status WriteMarker(const fs::path& path, const Marker& marker) {
  const fs::path fresh = path.string() + ".new";
  {
    std::ofstream file(fresh);
    file << kMarkerMagic << ' ' << marker.store_id << ' ' << marker.epoch
         << '\n';
    file.flush();
    if (!file) return ErrnoStatus(absl::StrCat("writing ", fresh.string()));
  }
  std::error_code error;
  fs::rename(fresh, path, error);
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("renaming to ", path.string(), ": ", error.message()));
  }
  return absl::OkStatus();
}

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
    return absl::UnavailableError(
        absl::StrCat("creating ", options_.directory, ": ", error.message()));
  }
  lock_fd_ =
      open((directory / "LOCK").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_fd_ < 0) {
    return ErrnoStatus(absl::StrCat("opening a lock in ", options_.directory));
  }
  if (flock(lock_fd_, LOCK_EX | LOCK_NB) != 0) {
    return absl::UnavailableError(
        absl::StrCat("another process uses ", options_.directory));
  }
  absl::StatusOr<std::optional<Marker>> marker =
      ReadMarker(directory / kMarkerName);
  if (!marker.ok()) return marker.status();
  Marker next = marker->value_or(Marker{});
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
  return WriteMarker(directory / kMarkerName, next);
}

absl::StatusOr<SegmentLog::SegmentPtr> SegmentLog::OpenSegment(uint32_t number,
                                                               bool create) {
  auto segment = std::make_shared<Segment>();
  segment->number = number;
  segment->path = absl::StrCat(options_.directory, "/segment-",
                               absl::Dec(number, absl::kZeroPad8));
  const int flags = O_RDWR | O_CLOEXEC | (create ? O_CREAT | O_EXCL : 0);
  segment->fd = open(segment->path.c_str(), flags | O_DIRECT, 0644);
  if (segment->fd < 0 && errno == EINVAL) {  // tmpfs knows no O_DIRECT
    direct_ = false;
    // The failed open may have made the file all the same.
    segment->fd = open(segment->path.c_str(), flags & ~O_EXCL, 0644);
  }
  if (segment->fd < 0) {
    return ErrnoStatus(absl::StrCat("opening ", segment->path));
  }
  return segment;
}

absl::Status SegmentLog::OpenSegments() {
  std::error_code error;
  absl::MutexLock lock(&mutex_);
  for (const fs::directory_entry& file :
       fs::directory_iterator(options_.directory, error)) {
    const std::optional<uint32_t> number =
        SegmentNumber(file.path().filename().string());
    if (!number) continue;
    absl::StatusOr<SegmentPtr> segment = OpenSegment(*number, false);
    if (!segment.ok()) return segment.status();
    struct stat info {};
    if (fstat((*segment)->fd, &info) != 0) {
      return ErrnoStatus(absl::StrCat("reading ", (*segment)->path));
    }
    // Whole pages: what a kill left behind the last one is no record.
    (*segment)->end =
        static_cast<uint64_t>(info.st_size) / kRecordPage * kRecordPage;
    total_bytes_ += (*segment)->end;
    next_segment_ = std::max(next_segment_, *number + 1);
    segments_.emplace(*number, *std::move(segment));
  }
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("listing ", options_.directory, ": ", error.message()));
  }
  return absl::OkStatus();
}

absl::Status SegmentLog::OpenIndex() {
  const std::string directory = absl::StrCat(options_.directory, "/index");
  const bool missing = !fs::exists(directory);
  absl::StatusOr<std::unique_ptr<DiskIndex>> opened =
      DiskIndex::Open(directory);
  absl::Status status = opened.status();
  if (opened.ok()) {
    index_ = *std::move(opened);
    if (!missing) status = LoadIndex();
  }
  if (missing ? status.ok() : absl::IsDataLoss(status)) {
    index_.reset();
    if (status = DiskIndex::Destroy(directory); !status.ok()) return status;
    std::error_code error;
    fs::remove_all(directory, error);  // what RocksDB does not call its own
    opened = DiskIndex::Open(directory);
    if (!opened.ok()) return opened.status();
    index_ = *std::move(opened);
    status = Rebuild();
  }
  return status;
}

absl::Status SegmentLog::LoadIndex() {
  std::vector<RecordHeader> lost;
  absl::MutexLock lock(&mutex_);
  // Loading may have begun before: counts start afresh.
  for (auto& [number, segment] : segments_) {
    segment->live = 0;
    segment->keys.clear();
  }
  counters_ = Counters{};
  absl::Status status = index_->ForEach(
      [&](const RecordHeader& record) ABSL_NO_THREAD_SAFETY_ANALYSIS {
        const auto segment = segments_.find(record.segment);
        const bool there = segment != segments_.end() &&
                           record.offset + RecordBytes(record.payload_bytes) <=
                               segment->second->end;
        if (there) {
          CountLive(record, true);
        } else {
          lost.push_back(record);
        }
      });
  if (!status.ok()) return status;
  for (const RecordHeader& record : lost) {
    if (status = index_->Erase(record.shard, record.key); !status.ok()) {
      return status;
    }
    ++counters_.damaged;
  }
  return absl::OkStatus();
}

absl::Status SegmentLog::Rebuild() {
  const std::unique_ptr<BlockIo> io = MakePosixIo(1u << 20);
  absl::flat_hash_map<ChunkKey, RecordHeader> newest;
  std::map<uint32_t, SegmentPtr> segments;
  {
    absl::MutexLock lock(&mutex_);
    segments = segments_;
  }
  for (const auto& [number, segment] : segments) {
    ScanSegment(*segment, *io, newest);
  }
  for (const auto& [key, record] : newest) {
    if (record.kind == RecordHeader::Kind::kTombstone) continue;
    if (absl::Status status = index_->Put(record, false); !status.ok()) {
      return status;
    }
  }
  if (absl::Status status = LoadIndex(); !status.ok()) return status;
  absl::MutexLock lock(&mutex_);
  counters_.rebuilt = counters_.objects;
  return absl::OkStatus();
}

void SegmentLog::ScanSegment(
    const Segment& segment, BlockIo& io,
    absl::flat_hash_map<ChunkKey, RecordHeader>& newest) {
  // One page-aligned megabyte, from the arena that every object lives in.
  absl::StatusOr<SharedMemory> memory =
      SharedMemory::Create("kdn-scan", kRecordPage + (1u << 20));
  if (!memory.ok()) return;
  const absl::Span<std::byte> page(memory->data(), kRecordPage);
  const absl::Span<std::byte> block(memory->data() + kRecordPage, 1u << 20);
  for (uint64_t at = 0; at + kRecordPage <= segment.end;) {
    const absl::Span<std::byte> pieces[] = {page};
    if (!io.Read(segment.fd, at, pieces).ok()) return;
    const absl::StatusOr<RecordHeader> header = DecodeRecordHeader(page);
    const bool mine = header.ok() && header->store_id == store_id_ &&
                      header->segment == segment.number &&
                      header->offset == at &&
                      RecordBytes(header->payload_bytes) <= segment.end - at;
    uint64_t left = mine ? header->payload_bytes : 0;
    uint32_t crc = 0;
    bool whole = mine;
    for (uint64_t from = at + kRecordPage; whole && left > 0;
         from += block.size()) {
      const uint64_t take = std::min<uint64_t>(left, block.size());
      const uint64_t pages = RecordBytes(take) - kRecordPage;
      const absl::Span<std::byte> run[] = {block.first(pages)};
      whole = io.Read(segment.fd, from, run).ok();
      crc = ExtendCrc32c(crc, block.first(take));
      left -= take;
    }
    // A half-written payload may hold the pages of the next record.
    if (!whole || crc != header->payload_crc32c) {
      at += kRecordPage;
      continue;
    }
    at += RecordBytes(header->payload_bytes);
    RecordHeader& known = newest[header->key];
    if (known.sequence < header->sequence) known = *header;
  }
}

}  // namespace kdn::storage
