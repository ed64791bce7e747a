// How the segment log makes room: it evicts and cleans the segments that the
// policy names. Before a file is deleted, the records that stay are written to
// another segment, synced and indexed there. So a kill or a power loss at any
// moment loses no record that stays, and brings back no object that was
// removed. Objects are dropped last: when a write fails, the eviction has
// dropped no object.
#include <unistd.h>

#include <cerrno>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kv/crc32c.h"
#include "kv/host_memory.h"
#include "kv/log.h"
#include "storage/disk_errors.h"
#include "storage/segment_log.h"

namespace kdn::storage {

absl::Status SegmentLog::MakeRoom(uint64_t record_bytes, BlockIo& io) {
  absl::MutexLock maintenance(&maintenance_);
  absl::Status failed;
  for (;;) {
    std::optional<DiskPolicy::Job> job;
    {
      absl::MutexLock lock(&mutex_);
      // The thread that held the lock before may have made enough room.
      if (policy_->HasRoom(record_bytes)) return absl::OkStatus();
      // The lock is released between the calls: reads need it too.
      if (!policy_->MarkForEviction(record_bytes)) continue;
      job = policy_->NextEviction();
    }
    if (!job) {
      // Since the last measurement, the file system may have got more room.
      MeasureFileSystem();
      absl::MutexLock lock(&mutex_);
      if (policy_->HasRoom(record_bytes)) return absl::OkStatus();
      return failed.ok() ? NothingToEvict() : failed;
    }
    absl::Status status = Empty(*job, io);
    if (status.ok() && failed.ok()) return status;
    failed.Update(status);
    if (!status.ok()) continue;
    // Failed writes may take room, so an eviction after them may gain nothing.
    absl::MutexLock lock(&mutex_);
    if (policy_->HasRoom(record_bytes)) return absl::OkStatus();
    policy_->RetryFailed();
    return failed;
  }
}

absl::Status SegmentLog::NothingToEvict() const {
  return absl::ResourceExhaustedError(absl::StrCat(
      "the disk tier of ", options_.directory, " (at most ",
      options_.capacity_bytes,
      " bytes, less where its file system is full) can evict nothing: leases "
      "or TTLs keep its objects, or they are being written; unpin some, set "
      "`disk` higher, or free space"));
}

absl::StatusOr<bool> SegmentLog::CleanOne(BlockIo& io) {
  const bool counted = CountTombstones(io);
  absl::MutexLock maintenance(&maintenance_);
  absl::Status failed;
  for (;;) {
    std::optional<DiskPolicy::Job> job;
    {
      absl::MutexLock lock(&mutex_);
      job = policy_->NextCleaning();
    }
    if (!job) break;
    const absl::Status status = Empty(*job, io);
    if (status.ok()) {
      absl::MutexLock lock(&mutex_);
      ++counters_.cleaned;
      return true;
    }
    failed.Update(status);
  }
  if (!failed.ok()) return failed;
  return counted;
}

absl::Status SegmentLog::Empty(const DiskPolicy::Job& job, BlockIo& io) {
  SegmentPtr segment;
  {
    absl::MutexLock lock(&mutex_);
    segment = segments_.at(job.segment);
  }
  absl::Status status = TakeOut(job, *segment, io);
  {
    absl::MutexLock lock(&mutex_);
    if (!status.ok()) {
      policy_->OnEmptyFailed();
      return status;
    }
    policy_->OnEmptied();
    segments_.erase(segment->number);
  }
  if (unlink(segment->path.c_str()) != 0) {
    LogWarning(
        "storage.unlink",
        DiskError(errno, absl::StrCat("deleting ", segment->path)).message());
  }
  MeasureFileSystem();
  return absl::OkStatus();
}

absl::Status SegmentLog::TakeOut(const DiskPolicy::Job& job,
                                 const Segment& segment, BlockIo& io) {
  // The copies of the live records may lie behind the copies of the tombstones:
  // a live record is newer than the tombstones of its object.
  if (absl::Status status = KeepTombstones(segment, io); !status.ok()) {
    return status;
  }
  std::vector<Moved> moved;
  std::vector<RecordHeader> rest;
  absl::Status status = MoveOut(job, segment, moved, rest, io);
  // Even after a failure, the copies made so far are installed, so that they
  // need not be made again.
  status.Update(InstallMoved(std::move(moved)));
  if (status.ok()) status = DropAll(rest, segment, io);
  // After a power loss, the index must not point into the deleted file.
  if (status.ok()) status = index_->Sync();
  return status;
}

absl::Status SegmentLog::MoveOut(const DiskPolicy::Job& job,
                                 const Segment& segment,
                                 std::vector<Moved>& moved,
                                 std::vector<RecordHeader>& rest, BlockIo& io) {
  std::vector<PlacedRecord> live;
  {
    absl::MutexLock lock(&mutex_);
    live = policy_->LiveIn(job.segment);
  }
  const absl::StatusOr<PrivateMemory> page = PrivateMemory::Create(kRecordPage);
  if (!page.ok()) return page.status();
  for (const PlacedRecord& placed : live) {
    absl::StatusOr<std::optional<RecordHeader>> record =
        LiveRecordAt(segment, placed, page->bytes(), io);
    const absl::Status unreadable = record.status();
    if (!unreadable.ok() && !absl::IsDataLoss(unreadable) &&
        job.kind == DiskPolicy::Job::Kind::kClean) {
      return unreadable;
    }
    if (!unreadable.ok()) record = IndexedRecordAt(placed);
    if (!record.ok()) return record.status();
    if (!record->has_value()) continue;
    absl::Status status;
    if (absl::IsDataLoss(unreadable)) {
      status = LoseDamaged(**record);
    } else if (!AskKeeps(job, **record)) {
      rest.push_back(**std::move(record));
    } else {
      status =
          unreadable.ok() ? Move(**record, segment, moved, io) : unreadable;
    }
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status SegmentLog::DropAll(const std::vector<RecordHeader>& records,
                                 const Segment& segment, BlockIo& io) {
  std::vector<Moved> moved;
  absl::Status status;
  for (const RecordHeader& record : records) {
    const absl::StatusOr<bool> evicted = Evict(record);
    status = evicted.status();
    if (status.ok() && !*evicted) status = Move(record, segment, moved, io);
    if (!status.ok()) break;
  }
  status.Update(InstallMoved(std::move(moved)));
  return status;
}

absl::Status SegmentLog::Move(const RecordHeader& record,
                              const Segment& segment, std::vector<Moved>& moved,
                              BlockIo& io) {
  absl::StatusOr<std::optional<Written>> copy = CopyRecord(record, segment, io);
  if (absl::IsDataLoss(copy.status())) return LoseDamaged(record);
  if (!copy.ok()) return copy.status();
  if (copy->has_value()) moved.push_back({record, **std::move(copy)});
  return absl::OkStatus();
}

absl::StatusOr<std::optional<RecordHeader>> SegmentLog::LiveRecordAt(
    const Segment& segment, const PlacedRecord& placed,
    absl::Span<std::byte> page, BlockIo& io) {
  const uint64_t offset = placed.place.offset;
  absl::StatusOr<RecordHeader> header =
      ReadHeaderAt(segment, offset, offset + placed.bytes, page, io);
  if (!header.ok()) return header.status();
  // Under the key's lock, the index and the policy agree.
  absl::MutexLock key_lock(&KeyLock(header->key));
  const absl::StatusOr<bool> indexed = IsIndexed(*header);
  if (!indexed.ok()) return indexed.status();
  if (!*indexed) return std::nullopt;
  return *std::move(header);
}

absl::StatusOr<std::optional<RecordHeader>> SegmentLog::IndexedRecordAt(
    const PlacedRecord& placed) {
  std::optional<RecordHeader> found;
  absl::Status status = index_->ForEach(
      [&](const RecordHeader& record, const RecordHeader& /*amended*/) {
        if (record.segment == placed.place.segment &&
            record.offset == placed.place.offset) {
          found = record;
        }
      });
  if (!status.ok()) return status;
  return found;
}

bool SegmentLog::AskKeeps(const DiskPolicy::Job& job,
                          const RecordHeader& record) {
  if (job.kind == DiskPolicy::Job::Kind::kClean) return true;
  // The policy may not have been told of a hold yet.
  if (options_.holds && options_.holds(record.shard, record.key)) return true;
  HeldChanged(record.shard, record.key).IgnoreError();
  absl::MutexLock lock(&mutex_);
  return policy_->Keeps({record.segment, record.offset});
}

absl::StatusOr<bool> SegmentLog::Evict(const RecordHeader& record) {
  {
    absl::MutexLock key_lock(&KeyLock(record.key));
    // See HeldChanged: a hold that HeldChanged has confirmed is seen here.
    if (options_.holds && options_.holds(record.shard, record.key)) {
      return false;
    }
    const absl::StatusOr<bool> indexed = IsIndexed(record);
    if (!indexed.ok()) return indexed.status();
    if (!*indexed) return true;
    absl::Status status = Uninstall(record, Why::kEvicted);
    if (!status.ok()) return status;
    absl::MutexLock lock(&mutex_);
    ++counters_.evictions;
  }
  if (options_.on_evicted) options_.on_evicted(record);
  return true;
}

absl::Status SegmentLog::LoseDamaged(const RecordHeader& record) {
  const absl::StatusOr<bool> dropped = DropDamaged(record);
  if (!dropped.ok()) return dropped.status();
  if (*dropped && options_.on_evicted) options_.on_evicted(record);
  return absl::OkStatus();
}

absl::StatusOr<std::optional<SegmentLog::Written>> SegmentLog::CopyRecord(
    const RecordHeader& record, const Segment& from, BlockIo& io) {
  const absl::StatusOr<PrivateMemory> buffer =
      PrivateMemory::Create(RecordBytes(record.payload_bytes));
  if (!buffer.ok()) return buffer.status();
  const absl::Span<std::byte> whole[] = {buffer->bytes()};
  if (absl::Status status = io.Read(from.fd, record.offset, whole);
      !status.ok()) {
    return InFile(from, status);
  }
  const absl::Span<std::byte> payload = buffer->bytes().subspan(kRecordPage);
  if (Crc32c(payload.first(record.payload_bytes)) != record.payload_crc32c) {
    return absl::DataLossError("a record to be moved fails its checksum");
  }
  absl::StatusOr<std::optional<Claim>> claim = ClaimForCopy(record, io);
  if (!claim.ok()) return claim.status();
  if (!claim->has_value()) return std::nullopt;
  // The copy's page has the amendment, so that a rebuilt index has it too.
  const absl::StatusOr<RecordHeader> amended = index_->Amended(record);
  if (!amended.ok()) return amended.status();
  absl::StatusOr<Written> copy =
      WriteAt(**std::move(claim), *amended, payload, io);
  if (!copy.ok()) return copy.status();
  return *std::move(copy);
}

absl::StatusOr<std::optional<SegmentLog::Claim>> SegmentLog::ClaimForCopy(
    const RecordHeader& record, BlockIo& io) {
  // Under the key's lock: a removal either precedes the claim, or its tombstone
  // gets a place behind the copy.
  absl::MutexLock key_lock(&KeyLock(record.key));
  const absl::StatusOr<bool> indexed = IsIndexed(record);
  if (!indexed.ok()) return indexed.status();
  if (!*indexed) return std::nullopt;
  absl::StatusOr<Claim> claim =
      ClaimSpace(RecordBytes(record.payload_bytes), Purpose::kMove, io);
  if (!claim.ok()) return claim.status();
  return *std::move(claim);
}

absl::Status SegmentLog::InstallMoved(std::vector<Moved> moved) {
  std::set<SegmentPtr> targets;
  for (const Moved& move : moved) targets.insert(move.to.claim.segment);
  for (const SegmentPtr& target : targets) {
    if (absl::Status status = SyncFile(*target); !status.ok()) return status;
  }
  for (const Moved& move : moved) {
    // If the object was removed or replaced, the copy is dead.
    const absl::StatusOr<Installed> installed =
        Install(move.to.record, &move.from);
    if (!installed.ok()) return installed.status();
  }
  return absl::OkStatus();
}

}  // namespace kdn::storage
