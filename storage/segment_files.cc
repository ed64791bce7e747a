// The files of the segment log: how a segment is made, cut, and measured.
#include <fcntl.h>
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
    return DiskError(errno, absl::StrCat("opening ", segment->path));
  }
  if (create) {
    // A record synced into a file without a name would be lost with it.
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
  // A number that failed is not tried again: its file may be there.
  absl::StatusOr<SegmentPtr> fresh = OpenSegment(next_segment_++, true);
  if (!fresh.ok()) return fresh.status();
  MeasureFileSystem();
  uint64_t bytes = 0;
  {
    absl::MutexLock lock(&mutex_);
    bytes = policy_->FreshSegmentBytes();
  }
  // Before the first record: what fails to be taken is cut off again.
  Preallocate(**fresh, bytes);
  SegmentPtr before;
  uint64_t end = 0;
  {
    absl::MutexLock lock(&mutex_);
    if (const auto at = segments_.find(seen); at != segments_.end()) {
      before = at->second;
      end = policy_->EndOf(seen);
      before->taken = 0;
    }
    policy_->OnOpened((*fresh)->number);
    segments_.emplace((*fresh)->number, *std::move(fresh));
  }
  if (before != nullptr) Trim(*before, end);
  return absl::OkStatus();
}

void SegmentLog::Preallocate(Segment& segment, uint64_t bytes) const {
  if (!direct_ || bytes == 0) return;
  if (fallocate(segment.fd, 0, 0, static_cast<off_t>(bytes)) == 0) {
    segment.taken = bytes;
  } else {
    // Full, or not known to this file system: the file grows as it is written.
    Trim(segment, 0);
  }
}

void SegmentLog::Trim(const Segment& segment, uint64_t end) {
  // What cannot be given back now is when the segment is opened next.
  (void)!ftruncate(segment.fd, static_cast<off_t>(end));
}

void SegmentLog::PunchOut(const Claim& claim, uint64_t record_bytes) {
  // A full file system needs the room at once: evicting writes to the index.
  // Where holes are not known the bytes go with their segment.
  (void)fallocate(claim.segment->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  static_cast<off_t>(claim.offset),
                  static_cast<off_t>(record_bytes));
}

void SegmentLog::MeasureFileSystem() {
  struct statvfs info {};
  if (statvfs(options_.directory.c_str(), &info) != 0) return;
  uint64_t free_bytes = uint64_t{info.f_bavail} * info.f_frsize;
  absl::MutexLock lock(&mutex_);
  // What was taken in advance is counted as used, and is free for records.
  if (const auto open = segments_.find(policy_->open_segment());
      open != segments_.end()) {
    const uint64_t end = policy_->EndOf(open->first);
    if (open->second->taken > end) free_bytes += open->second->taken - end;
  }
  policy_->OnFileSystemRoom(free_bytes);
}

}  // namespace kdn::storage
