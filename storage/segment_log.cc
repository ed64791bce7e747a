#include "storage/segment_log.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "kv/crc32c.h"
#include "kv/host_memory.h"

namespace kdn::storage {

Segment::~Segment() {
  if (fd >= 0) close(fd);
}

absl::Status InFile(const Segment& segment, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrCat(segment.path, ": ", status.message()));
}

namespace {

absl::Status SyncFile(const Segment& segment) {
  if (fdatasync(segment.fd) == 0) return absl::OkStatus();
  return InFile(segment, absl::UnavailableError(
                             absl::StrCat("fdatasync: ", strerror(errno))));
}

}  // namespace

SegmentLog::~SegmentLog() {
  if (active_ != nullptr) Trim(*active_);
  if (lock_fd_ >= 0) close(lock_fd_);
}

SegmentLog::Claim::~Claim() {
  if (segment == nullptr) return;
  absl::MutexLock lock(&log_->mutex_);
  --segment->writers;
}

absl::StatusOr<SegmentLog::Claim> SegmentLog::ClaimSpace(uint64_t record_bytes,
                                                         WhenFull when_full,
                                                         BlockIo& io) {
  const absl::Status full = absl::ResourceExhaustedError(
      absl::StrCat("no room for ", record_bytes, " bytes in a disk tier of ",
                   options_.capacity_bytes));
  if (record_bytes > options_.capacity_bytes) return full;
  for (;;) {
    {
      absl::MutexLock lock(&mutex_);
      if (when_full == WhenFull::kExceed ||
          total_bytes_ + record_bytes <= options_.capacity_bytes) {
        if (absl::Status status = RollOver(record_bytes); !status.ok()) {
          return status;
        }
        const uint64_t offset = active_->end;
        active_->end += record_bytes;
        ++active_->writers;
        active_->unsynced = true;
        total_bytes_ += record_bytes;
        return Claim(this, active_, offset, ++next_sequence_);
      }
    }
    if (when_full == WhenFull::kFail) return full;
    absl::Status status = MakeRoom(Full::kCapacity, record_bytes, io);
    if (!status.ok()) return status;
  }
}

absl::Status SegmentLog::RollOver(uint64_t record_bytes) {
  const bool fits = active_ != nullptr &&
                    (active_->end == 0 ||
                     active_->end + record_bytes <= options_.segment_bytes);
  if (fits) return absl::OkStatus();
  // A number that failed is not tried again: its file may be there.
  absl::StatusOr<SegmentPtr> fresh = OpenSegment(next_segment_++, true);
  if (!fresh.ok()) return fresh.status();
  if (active_ != nullptr) Trim(*active_);
  // Often enough to find that a disk has recovered, or not.
  for (const auto& [number, segment] : segments_) segment->stuck_with = 0;
  active_ = *std::move(fresh);
  Preallocate(*active_);
  segments_.emplace(active_->number, active_);
  return absl::OkStatus();
}

void SegmentLog::Preallocate(const Segment& segment) {
  // Tombstones may exceed the capacity.
  if (!direct_ || total_bytes_ >= options_.capacity_bytes) return;
  const uint64_t bytes =
      std::min(options_.segment_bytes, options_.capacity_bytes - total_bytes_);
  if (fallocate(segment.fd, 0, 0, static_cast<off_t>(bytes)) != 0) {
    // Full, or not known to this file system: the file grows as it is written.
    Trim(segment);
  }
}

void SegmentLog::Trim(const Segment& segment) {
  // What cannot be given back now is when the segment is opened next.
  (void)!ftruncate(segment.fd, static_cast<off_t>(segment.end));
}

absl::StatusOr<SegmentLog::Written> SegmentLog::WriteRecord(
    RecordHeader header, absl::Span<const std::byte> padded_payload, bool sync,
    WhenFull when_full, BlockIo& io) {
  absl::StatusOr<Claim> claim =
      ClaimSpace(kRecordPage + padded_payload.size(), when_full, io);
  if (!claim.ok()) return claim.status();
  header.store_id = store_id_;
  header.segment = claim->segment->number;
  header.offset = claim->offset;
  // A moved record keeps its rank: what replaced it meanwhile outranks it.
  if (header.sequence == 0) header.sequence = claim->sequence;
  alignas(kRecordPage) thread_local std::byte page[kRecordPage];
  EncodeRecordHeader(header, page);
  const absl::Span<const std::byte> pieces[] = {page, padded_payload};
  absl::Status status =
      io.Write(claim->segment->fd, claim->offset,
               absl::MakeSpan(pieces, padded_payload.empty() ? 1 : 2));
  if (!status.ok()) {
    PunchOut(*claim, kRecordPage + padded_payload.size());
    return InFile(*claim->segment, status);
  }
  if (header.kind == RecordHeader::Kind::kTombstone) {
    absl::MutexLock lock(&mutex_);
    claim->segment->tombstones += RecordBytes(0);
  }
  if (sync) {
    status = SyncFile(*claim->segment);
    if (!status.ok()) return status;
  }
  return Written{std::move(header), *std::move(claim)};
}

void SegmentLog::PunchOut(const Claim& claim, uint64_t record_bytes) {
  // A full file system needs the room at once: evicting writes to the index.
  // Where holes are not known the bytes go with their segment.
  (void)fallocate(claim.segment->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  static_cast<off_t>(claim.offset),
                  static_cast<off_t>(record_bytes));
}

absl::Status SegmentLog::Append(RecordHeader object,
                                absl::Span<const std::byte> padded_payload,
                                bool sync, BlockIo& io) {
  object.payload_crc32c = Crc32c(padded_payload.first(object.payload_bytes));
  // A file system that fills up before the capacity is reached gives way once.
  constexpr int kTries = 3;
  absl::Status status;
  for (int i = 0; i < kTries; ++i) {
    absl::StatusOr<Written> written =
        WriteRecord(object, padded_payload, sync, WhenFull::kMakeRoom, io);
    status = written.status();
    if (status.ok()) {
      status = Install(written->record, sync, std::nullopt).status();
    }
    if (!absl::IsResourceExhausted(status)) return status;
    if (!MakeRoom(Full::kFileSystem, RecordBytes(object.payload_bytes), io)
             .ok()) {
      return status;
    }
  }
  return status;
}

absl::Status SegmentLog::Read(const ObjectInfo& info,
                              absl::Span<std::byte> padded, BlockIo& io) {
  absl::StatusOr<Place> place = Locate(info.shard, info.key);
  if (!place.ok()) return place.status();
  const RecordHeader& record = place->record;
  if (record.version != info.version || record.payload_bytes != info.bytes) {
    return absl::NotFoundError("the disk tier does not hold that version");
  }
  alignas(kRecordPage) thread_local std::byte page[kRecordPage];
  const absl::Span<std::byte> pieces[] = {absl::MakeSpan(page), padded};
  absl::Status status = InFile(
      *place->segment, io.Read(place->segment->fd, record.offset, pieces));
  if (status.ok()) {
    const absl::StatusOr<RecordHeader> header = DecodeRecordHeader(page);
    if (!header.ok() || *header != record) {
      status = absl::DataLossError("the record on disk is not the one indexed");
    } else if (Crc32c(padded.first(info.bytes)) != record.payload_crc32c) {
      status = absl::DataLossError("the record on disk fails its checksum");
    }
  }
  if (!absl::IsDataLoss(status)) return status;
  if (absl::StatusOr<bool> dropped =
          Uninstall(record.shard, record.key, record);
      dropped.ok() && *dropped) {
    absl::MutexLock lock(&mutex_);
    ++counters_.damaged;
  }
  return status;
}

absl::Status SegmentLog::Remove(ShardId shard, const ChunkKey& key,
                                BlockIo& io) {
  absl::StatusOr<std::optional<RecordHeader>> found = index_->Get(shard, key);
  if (!found.ok()) return found.status();
  if (!found->has_value()) return absl::OkStatus();
  // The tombstone is for a rebuild: the index alone would forget the removal.
  RecordHeader tombstone;
  tombstone.kind = RecordHeader::Kind::kTombstone;
  tombstone.shard = shard;
  tombstone.key = key;
  const absl::StatusOr<Written> written =
      WriteRecord(std::move(tombstone), {}, false, WhenFull::kExceed, io);
  // Whatever it is by now: a cleaning may have moved it since it was found.
  // Without a tombstone as well: only a rebuild finds it again then.
  const absl::StatusOr<bool> gone = Uninstall(shard, key, std::nullopt);
  return gone.ok() ? written.status() : gone.status();
}

absl::StatusOr<bool> SegmentLog::Install(
    const RecordHeader& record, bool sync,
    const std::optional<RecordHeader>& expected) {
  {
    absl::MutexLock lock(&mutex_);
    absl::StatusOr<std::optional<RecordHeader>> old =
        index_->Get(record.shard, record.key);
    if (!old.ok()) return old.status();
    if (expected && *old != expected) return false;
    if (absl::Status status = index_->Put(record); !status.ok()) return status;
    if (old->has_value()) CountLive(**old, false);
    CountLive(record, true);
  }
  // Outside the lock: nobody else has to wait for the disk's cache.
  if (absl::Status status = sync ? index_->Sync() : absl::OkStatus();
      !status.ok()) {
    return status;
  }
  return true;
}

absl::StatusOr<bool> SegmentLog::Uninstall(
    ShardId shard, const ChunkKey& key,
    const std::optional<RecordHeader>& expected) {
  absl::MutexLock lock(&mutex_);
  absl::StatusOr<std::optional<RecordHeader>> now = index_->Get(shard, key);
  if (!now.ok()) return now.status();
  if (!now->has_value() || (expected && *now != expected)) return false;
  if (absl::Status status = index_->Erase(shard, key); !status.ok()) {
    return status;
  }
  CountLive(**now, false);
  return true;
}

void SegmentLog::CountLive(const RecordHeader& record, bool live) {
  const auto found = segments_.find(record.segment);
  if (found == segments_.end()) return;
  Segment& segment = *found->second;
  const uint64_t bytes = RecordBytes(record.payload_bytes);
  if (live) {
    KDN_CHECK(segment.keys.insert(record.record_key()).second,
              "a segment's record is counted once");
    segment.live += bytes;
    counters_.live_bytes += bytes;
    ++counters_.objects;
  } else {
    KDN_CHECK(
        segment.keys.erase(record.record_key()) == 1 && segment.live >= bytes,
        "only a live record can die");
    segment.live -= bytes;
    counters_.live_bytes -= bytes;
    --counters_.objects;
  }
}

absl::StatusOr<SegmentLog::Place> SegmentLog::Locate(
    ShardId shard, const ChunkKey& key) const {
  // Under the lock, as a cleaning moves the entry before it drops the segment:
  // between the two an object that is there would seem gone.
  absl::MutexLock lock(&mutex_);
  absl::StatusOr<std::optional<RecordHeader>> record = index_->Get(shard, key);
  if (!record.ok()) return record.status();
  if (!record->has_value()) {
    return absl::NotFoundError("the disk tier does not hold the object");
  }
  const auto found = segments_.find((*record)->segment);
  KDN_CHECK(found != segments_.end(), "an indexed record has its segment");
  return Place{**std::move(record), found->second};
}

absl::Status SegmentLog::ForEach(
    absl::FunctionRef<void(const RecordHeader&)> visit) {
  return index_->ForEach(visit);
}

absl::Status SegmentLog::Sync() {
  std::vector<SegmentPtr> unsynced;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [number, segment] : segments_) {
      if (!segment->unsynced) continue;
      segment->unsynced = segment->writers > 0;
      unsynced.push_back(segment);
    }
  }
  for (const SegmentPtr& segment : unsynced) {
    absl::Status status = SyncFile(*segment);
    if (status.ok()) continue;
    absl::MutexLock lock(&mutex_);
    for (const SegmentPtr& again : unsynced) again->unsynced = true;
    return status;
  }
  return index_->Sync();
}

SegmentLog::Counters SegmentLog::counters() const {
  absl::MutexLock lock(&mutex_);
  Counters counters = counters_;
  counters.segments = segments_.size();
  counters.segment_bytes = total_bytes_;
  return counters;
}

}  // namespace kdn::storage
