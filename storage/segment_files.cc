// The files of the segment log: how a segment is created, trimmed and measured.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "storage/disk_errors.h"
#include "storage/segment_log.h"
#include "storage/store_marker.h"

namespace kdn::storage {

namespace {

constexpr mode_t kOwnerOnly = S_IRUSR | S_IWUSR;

// Fails for a file that is not the segment that it seems to be: writing through
// a link would damage another file, and a pipe keeps no bytes.
absl::Status CheckRegular(const Segment& segment) {
  struct stat info {};
  if (fstat(segment.fd, &info) != 0) {
    return DiskError(errno, absl::StrCat("reading ", segment.path));
  }
  if (S_ISREG(info.st_mode)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(segment.path, " is not a regular file"));
}

}  // namespace

std::string SegmentName(uint32_t number) {
  return absl::StrCat("segment-", absl::Dec(number, absl::kZeroPad8));
}

absl::StatusOr<SegmentLog::SegmentPtr> SegmentLog::OpenSegment(uint32_t number,
                                                               bool create) {
  auto segment = std::make_shared<Segment>();
  segment->number = number;
  segment->path = absl::StrCat(options_.directory, "/", SegmentName(number));
  const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK |
                    (create ? O_CREAT | O_EXCL : 0);
  segment->fd = open(segment->path.c_str(), flags | O_DIRECT, kOwnerOnly);
  if (segment->fd < 0 && errno == EINVAL) {  // tmpfs has no O_DIRECT
    direct_ = false;
    // The failed open may have created the file, so the second open must not be
    // exclusive.
    segment->fd = open(segment->path.c_str(), flags & ~O_EXCL, kOwnerOnly);
  }
  if (segment->fd < 0) {
    return DiskError(errno, absl::StrCat("opening ", segment->path));
  }
  if (absl::Status status = CheckRegular(*segment); !status.ok()) return status;
  // O_NONBLOCK was for pipes. On a regular file, some kernels make io_uring
  // answer "try again" for ever.
  if (fcntl(segment->fd, F_SETFL, fcntl(segment->fd, F_GETFL) & ~O_NONBLOCK) !=
      0) {
    return DiskError(errno, absl::StrCat("opening ", segment->path));
  }
  if (create) {
    // Without its name in the directory, the file and the records synced into
    // it would be lost.
    absl::Status status = SyncDirectory(options_.directory);
    if (!status.ok()) {
      unlink(segment->path.c_str());
      return status;
    }
  }
  return segment;
}

absl::Status SegmentLog::RollOver(uint32_t seen) {
  absl::MutexLock roll(&roll_);
  {
    absl::MutexLock lock(&mutex_);
    if (policy_->open_segment() != seen) return absl::OkStatus();
  }
  // If the file cannot be opened, its number is not used again: the file may
  // exist.
  absl::StatusOr<SegmentPtr> fresh = OpenSegment(next_segment_++, true);
  if (!fresh.ok()) return fresh.status();
  MeasureFileSystem();
  uint64_t bytes = 0;
  {
    absl::MutexLock lock(&mutex_);
    bytes = policy_->FreshSegmentBytes();
  }
  // This comes before the first record, because a failed Preallocate cuts the
  // file to nothing.
  Preallocate(**fresh, bytes);
  std::vector<Untrimmed> full;
  {
    absl::MutexLock lock(&mutex_);
    full = TakeUntrimmed();
    policy_->OnOpened((*fresh)->number);
    segments_.emplace((*fresh)->number, *fresh);
  }
  for (const Untrimmed& file : full) Trim(*file.segment, file.end);
  return absl::OkStatus();
}

std::vector<SegmentLog::Untrimmed> SegmentLog::TakeUntrimmed() {
  std::vector<Untrimmed> files;
  for (const auto& [number, segment] : segments_) {
    if (std::exchange(segment->taken, 0) == 0) continue;
    files.push_back({segment, policy_->EndOf(number)});
  }
  return files;
}

void SegmentLog::Preallocate(Segment& segment, uint64_t bytes) const {
  if (!direct_ || bytes == 0) return;
  if (fallocate(segment.fd, 0, 0, static_cast<off_t>(bytes)) == 0) {
    segment.taken = bytes;
  } else {
    // The file system is full or cannot allocate in advance: the file grows as
    // it is written.
    Trim(segment, 0);
  }
}

void SegmentLog::Trim(const Segment& segment, uint64_t end) {
  // After an error the space stays allocated until the next start trims it.
  (void)!ftruncate(segment.fd, static_cast<off_t>(end));
}

void SegmentLog::PunchOut(const Claim& claim, uint64_t record_bytes) {
  // A full file system needs the room at once, because even an eviction writes
  // to the index. Without support for holes, the bytes stay until the segment
  // is deleted.
  (void)fallocate(claim.segment->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  static_cast<off_t>(claim.offset),
                  static_cast<off_t>(record_bytes));
}

void SegmentLog::MeasureFileSystem() {
  struct statvfs info {};
  if (statvfs(options_.directory.c_str(), &info) != 0) return;
  uint64_t free_bytes = uint64_t{info.f_bavail} * info.f_frsize;
  absl::MutexLock lock(&mutex_);
  // The file system counts the allocated end of the open segment as used, but
  // records may go there.
  if (const auto open = segments_.find(policy_->open_segment());
      open != segments_.end()) {
    const uint64_t end = policy_->EndOf(open->first);
    if (open->second->taken > end) free_bytes += open->second->taken - end;
  }
  policy_->OnFileSystemRoom(free_bytes);
}

}  // namespace kdn::storage
