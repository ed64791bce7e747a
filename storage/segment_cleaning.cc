// How the segment log makes room: it evicts and cleans the segments that the
// policy names. Either way what stays is written and indexed anew before the
// old file goes, so a kill at any moment loses nothing.
#include <unistd.h>

#include <cerrno>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
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
      // Whoever came before may have made room for more than itself.
      if (policy_->HasRoom(record_bytes)) return absl::OkStatus();
      job = policy_->NextEviction(record_bytes);
    }
    if (!job) {
      // The file system may have more room than when it was measured last.
      MeasureFileSystem();
      absl::MutexLock lock(&mutex_);
      if (policy_->HasRoom(record_bytes)) return absl::OkStatus();
      return failed.ok() ? NothingToEvict() : failed;
    }
    absl::Status status = Empty(*job, io);
    if (status.ok()) return status;
    failed.Update(status);
  }
}

absl::Status SegmentLog::NothingToEvict() const {
  return absl::ResourceExhaustedError(absl::StrCat(
      "the disk tier of ", options_.directory, " (at most ",
      options_.capacity_bytes,
      " bytes, less where its file system is full) holds only objects that "
      "leases or TTLs keep: unpin some, set `disk` higher, or free space"));
}

absl::StatusOr<bool> SegmentLog::CleanOne(BlockIo& io) {
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
  return false;
}

absl::Status SegmentLog::Empty(const DiskPolicy::Job& job, BlockIo& io) {
  SegmentPtr segment;
  {
    absl::MutexLock lock(&mutex_);
    segment = segments_.at(job.segment);
  }
  std::vector<Moved> moved;
  absl::Status status = MoveOut(job, segment, moved, io);
  // What was copied before a failure need not be copied again.
  status.Update(InstallMoved(std::move(moved), io));
  if (status.ok()) KeepTombstones(*segment, io);
  // An index that lags behind the files after a power loss would seem damaged.
  if (status.ok()) status = index_->Sync();
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

absl::Status SegmentLog::MoveOut(const DiskPolicy::Job& job,
                                 const SegmentPtr& segment,
                                 std::vector<Moved>& moved, BlockIo& io) {
  std::vector<PlacedRecord> live;
  {
    absl::MutexLock lock(&mutex_);
    live = policy_->LiveIn(job.segment);
  }
  const absl::StatusOr<PrivateMemory> page = PrivateMemory::Create(kRecordPage);
  if (!page.ok()) return page.status();
  for (const PlacedRecord& placed : live) {
    absl::StatusOr<std::optional<RecordHeader>> record =
        LiveRecordAt(*segment, placed, page->bytes(), io);
    const absl::Status unreadable = record.status();
    if (!unreadable.ok()) {
      if (job.kind == DiskPolicy::Job::Kind::kClean &&
          !absl::IsDataLoss(unreadable)) {
        return unreadable;
      }
      record = IndexedRecordAt(placed);
    }
    if (!record.ok()) return record.status();
    if (!record->has_value()) continue;  // died meanwhile
    if (absl::IsDataLoss(unreadable) || !AskKeeps(job, **record)) {
      absl::Status status = DropRecord(**record, absl::IsDataLoss(unreadable));
      if (!status.ok()) return status;
      continue;
    }
    if (!unreadable.ok()) return unreadable;
    absl::StatusOr<Written> copy = CopyRecord(**record, *segment, io);
    if (copy.ok()) {
      moved.push_back({**std::move(record), *std::move(copy)});
      continue;
    }
    if (!absl::IsDataLoss(copy.status())) return copy.status();
    absl::Status status = DropRecord(**record, true);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<RecordHeader>> SegmentLog::LiveRecordAt(
    const Segment& segment, const PlacedRecord& placed,
    absl::Span<std::byte> page, BlockIo& io) {
  const uint64_t offset = placed.place.offset;
  absl::StatusOr<RecordHeader> header =
      ReadHeaderAt(segment, offset, offset + placed.bytes, page, io);
  if (!header.ok()) return header.status();
  // With the key's lock: whoever changes the index tells the policy before the
  // lock is free again.
  absl::MutexLock key_lock(&KeyLock(header->key));
  absl::StatusOr<std::optional<RecordHeader>> now =
      index_->Get(header->shard, header->key);
  if (!now.ok()) return now.status();
  if (*now != *header) return std::nullopt;
  return now;
}

absl::StatusOr<std::optional<RecordHeader>> SegmentLog::IndexedRecordAt(
    const PlacedRecord& placed) {
  std::optional<RecordHeader> found;
  absl::Status status = index_->ForEach([&](const RecordHeader& record) {
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
  // Asked without a lock, at the last moment: the policy may not know yet.
  const bool held = options_.holds && options_.holds(record.shard, record.key);
  HeldChanged(record.shard, record.key);
  if (held) return true;
  absl::MutexLock lock(&mutex_);
  return policy_->Keeps({record.segment, record.offset});
}

absl::Status SegmentLog::DropRecord(const RecordHeader& record, bool damaged) {
  const absl::StatusOr<bool> dropped =
      Uninstall(record.shard, record.key, &record,
                damaged ? Why::kRemoved : Why::kEvicted);
  if (!dropped.ok()) return dropped.status();
  if (!*dropped) return absl::OkStatus();
  {
    absl::MutexLock lock(&mutex_);
    ++(damaged ? counters_.damaged : counters_.evictions);
  }
  if (options_.on_evicted) options_.on_evicted(record);
  return absl::OkStatus();
}

absl::StatusOr<SegmentLog::Written> SegmentLog::CopyRecord(
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
  return WriteRecord(record, payload, Purpose::kMove, io);
}

absl::Status SegmentLog::InstallMoved(std::vector<Moved> moved, BlockIo& io) {
  std::set<SegmentPtr> targets;
  for (const Moved& move : moved) targets.insert(move.to.claim.segment);
  for (const SegmentPtr& target : targets) {
    if (absl::Status status = SyncFile(*target); !status.ok()) return status;
  }
  for (const Moved& move : moved) {
    const absl::StatusOr<bool> installed = Install(move.to.record, &move.from);
    if (!installed.ok()) return installed.status();
    if (*installed) continue;
    // Removed or replaced meanwhile. The copy may outlive the tombstone of that
    // removal; one of its own keeps a rebuild from finding it.
    RecordHeader tombstone = move.from;
    tombstone.kind = RecordHeader::Kind::kTombstone;
    tombstone.payload_bytes = 0;
    tombstone.payload_crc32c = 0;
    absl::Status status =
        WriteRecord(tombstone, {}, Purpose::kTombstone, io).status();
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

void SegmentLog::KeepTombstones(const Segment& segment, BlockIo& io) {
  uint64_t end = 0;
  {
    absl::MutexLock lock(&mutex_);
    if (!policy_->KeepsTombstones(segment.number)) return;
    end = policy_->EndOf(segment.number);
  }
  const absl::StatusOr<PrivateMemory> page = PrivateMemory::Create(kRecordPage);
  if (!page.ok()) return;
  for (uint64_t at = 0; at < end;) {
    const absl::StatusOr<RecordHeader> header =
        ReadHeaderAt(segment, at, end, page->bytes(), io);
    at += header.ok() ? RecordBytes(header->payload_bytes) : kRecordPage;
    if (!header.ok() || header->kind != RecordHeader::Kind::kTombstone) {
      continue;
    }
    // Also of what was put again since: evicted, that leaves no tombstone. Lost
    // to a full file system it could only revive an object in a rebuild.
    const absl::Status status =
        WriteRecord(*header, {}, Purpose::kTombstone, io).status();
    if (!status.ok()) LogWarning("storage.tombstone", status.message());
  }
}

}  // namespace kdn::storage
