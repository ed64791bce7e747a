#include "storage/segment_log.h"

#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "kv/crc32c.h"
#include "storage/disk_errors.h"
#include "storage/eviction_policy.h"

namespace kdn::storage {
namespace {

RecordPlace PlaceOf(const RecordHeader& record) {
  return {record.segment, record.offset};
}

}  // namespace

Segment::~Segment() {
  if (fd >= 0) close(fd);
}

absl::Status InFile(const Segment& segment, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrCat(segment.path, ": ", status.message()));
}

absl::Status SyncFile(const Segment& segment) {
  if (fdatasync(segment.fd) == 0) return absl::OkStatus();
  return DiskError(errno, absl::StrCat("fdatasync of ", segment.path));
}

SegmentLog::SegmentLog(Options options) : options_(std::move(options)) {
  absl::MutexLock lock(&mutex_);
  ResetPolicy();
}

void SegmentLog::ResetPolicy() {
  DiskPolicy::Options policy;
  policy.capacity_bytes = options_.capacity_bytes;
  policy.segment_bytes = options_.segment_bytes;
  policy.clean_below_live = options_.clean_below_live;
  policy_.emplace(policy);
  for (const auto& [number, segment] : segments_) {
    policy_->AddSegment(number, segment->end_at_start);
  }
}

SegmentLog::~SegmentLog() {
  {
    absl::MutexLock lock(&mutex_);
    for (const Untrimmed& file : TakeUntrimmed()) Trim(*file.segment, file.end);
  }
  if (lock_fd_ >= 0) close(lock_fd_);
}

SegmentLog::Claim::~Claim() {
  if (segment == nullptr) return;
  absl::MutexLock lock(&log_->mutex_);
  if (failed_bytes > 0) {
    log_->policy_->OnWriteFailed({segment->number, offset}, failed_bytes);
  } else {
    log_->policy_->OnWritten({segment->number, offset});
  }
}

absl::StatusOr<SegmentLog::Claim> SegmentLog::ClaimSpace(uint64_t record_bytes,
                                                         Purpose purpose,
                                                         BlockIo& io) {
  using Kind = DiskPolicy::Placement::Kind;
  bool measured = false;
  for (;;) {
    uint32_t open = 0;
    Kind kind;
    {
      absl::MutexLock lock(&mutex_);
      const DiskPolicy::Placement placement =
          policy_->Place(record_bytes, purpose);
      kind = placement.kind;
      open = policy_->open_segment();
      if (kind == Kind::kPlaced) {
        const SegmentPtr& segment = segments_.at(placement.place.segment);
        segment->unsynced = true;
        return Claim(this, segment, placement.place.offset, ++next_sequence_);
      }
    }
    absl::Status status = NoRoomFor(record_bytes);
    if (kind == Kind::kRollOver) {
      status = RollOver(open);
    } else if (kind == Kind::kNoRoom && purpose == Purpose::kObject) {
      status = MakeRoom(record_bytes, io);
    } else if (kind == Kind::kTooLarge && !std::exchange(measured, true)) {
      // Since the last measurement, the file system may have got more room.
      MeasureFileSystem();
      status = absl::OkStatus();
    }
    if (!status.ok()) return status;
  }
}

absl::Status SegmentLog::NoRoomFor(uint64_t record_bytes) const {
  return absl::ResourceExhaustedError(
      absl::StrCat("no room for ", record_bytes, " bytes in the disk tier of ",
                   options_.directory, ", ", options_.capacity_bytes,
                   " bytes: set `disk` higher"));
}

absl::StatusOr<SegmentLog::Written> SegmentLog::WriteTombstone(
    RecordHeader tombstone, BlockIo& io) {
  absl::StatusOr<Claim> claim =
      ClaimSpace(kRecordPage, Purpose::kTombstone, io);
  if (!claim.ok()) return claim.status();
  return WriteAt(*std::move(claim), std::move(tombstone), {}, io);
}

absl::StatusOr<SegmentLog::Written> SegmentLog::WriteAt(
    Claim claim, RecordHeader header,
    absl::Span<const std::byte> padded_payload, BlockIo& io) {
  header.store_id = store_id_;
  header.segment = claim.segment->number;
  header.offset = claim.offset;
  // A copy keeps its sequence: a newer record of the object outranks the copy.
  if (header.sequence == 0) header.sequence = claim.sequence;
  alignas(kRecordPage) thread_local std::byte page[kRecordPage];
  EncodeRecordHeader(header, page);
  const absl::Span<const std::byte> pieces[] = {page, padded_payload};
  absl::Status status =
      io.Write(claim.segment->fd, claim.offset,
               absl::MakeSpan(pieces, padded_payload.empty() ? 1 : 2));
  if (!status.ok()) {
    claim.failed_bytes = kRecordPage + padded_payload.size();
    PunchOut(claim, claim.failed_bytes);
    return InFile(*claim.segment, status);
  }
  if (header.kind == RecordHeader::Kind::kTombstone) {
    absl::MutexLock lock(&mutex_);
    policy_->OnTombstone(PlaceOf(header), kRecordPage);
  }
  return Written{std::move(header), std::move(claim)};
}

absl::Status SegmentLog::Append(RecordHeader object,
                                absl::Span<const std::byte> padded_payload,
                                bool sync, BlockIo& io) {
  object.payload_crc32c = Crc32c(padded_payload.first(object.payload_bytes));
  // The file system may be full before the capacity is reached. The policy then
  // works with a smaller capacity, and the next try evicts.
  constexpr int kTries = 3;
  absl::Status status;
  for (int i = 0; i < kTries; ++i) {
    absl::StatusOr<Claim> claim =
        ClaimSpace(kRecordPage + padded_payload.size(), Purpose::kObject, io);
    if (!claim.ok()) return claim.status();
    status = AppendAt(*std::move(claim), object, padded_payload, sync, io);
    if (!absl::IsResourceExhausted(status)) return status;
    absl::MutexLock lock(&mutex_);
    policy_->OnFileSystemFull();
  }
  return status;
}

absl::Status SegmentLog::AppendAt(Claim claim, const RecordHeader& object,
                                  absl::Span<const std::byte> padded_payload,
                                  bool sync, BlockIo& io) {
  absl::StatusOr<Written> written =
      WriteAt(std::move(claim), object, padded_payload, io);
  if (!written.ok()) return written.status();
  if (sync) {
    absl::Status status = SyncFile(*written->claim.segment);
    if (!status.ok()) {
      // A rebuild of the index would find the object of a store that failed.
      written->claim.failed_bytes = RecordBytes(object.payload_bytes);
      PunchOut(written->claim, written->claim.failed_bytes);
      return status;
    }
  }
  const absl::StatusOr<Installed> installed = Install(written->record, nullptr);
  if (!installed.ok()) return installed.status();
  if (!sync) return absl::OkStatus();
  absl::Status status = index_->Sync();
  // A record that has replaced another one stays: the object was on disk
  // before, and its copy must not go.
  if (!status.ok() && *installed == Installed::kNew) TakeOutFailed(*written);
  return status;
}

void SegmentLog::TakeOutFailed(const Written& written) {
  const RecordHeader& record = written.record;
  {
    absl::MutexLock key_lock(&KeyLock(record.key));
    const absl::StatusOr<bool> indexed = IsIndexed(record);
    if (indexed.ok() && !*indexed) return;
    // If the index cannot be changed, its entry names a record without bytes,
    // and the next read drops the entry as damaged.
    if (indexed.ok()) Uninstall(record, Why::kRemoved).IgnoreError();
  }
  PunchOut(written.claim, RecordBytes(record.payload_bytes));
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
      status = absl::DataLossError(
          "the record on disk differs from its index entry");
    } else if (Crc32c(padded.first(info.bytes)) != record.payload_crc32c) {
      status = absl::DataLossError("the record on disk fails its checksum");
    }
    status = InFile(*place->segment, status);
  }
  // The caller gets the error of the read, even if the index cannot be changed.
  if (absl::IsDataLoss(status)) DropDamaged(record).status().IgnoreError();
  return status;
}

absl::Status SegmentLog::Remove(ShardId shard, const ChunkKey& key,
                                BlockIo& io) {
  // The lock keeps a cleaning from copying the record to a place behind the
  // tombstone: the copy would outlive the tombstone.
  absl::MutexLock key_lock(&KeyLock(key));
  absl::StatusOr<std::optional<RecordHeader>> found = index_->Get(shard, key);
  if (!found.ok()) return found.status();
  if (!found->has_value()) {
    absl::MutexLock lock(&mutex_);
    if (!policy_->MayHoldDeadRecords()) return absl::OkStatus();
  }
  // To remove the index entry would suffice, but a rebuild of the index has to
  // learn of the removal: it would find an older record of the object, even if
  // the newest record was evicted.
  RecordHeader tombstone;
  tombstone.kind = RecordHeader::Kind::kTombstone;
  tombstone.shard = shard;
  tombstone.key = key;
  const absl::StatusOr<Written> written =
      WriteTombstone(std::move(tombstone), io);
  if (found->has_value()) {
    // The index entry goes even without a tombstone: then only a rebuild can
    // find the object.
    absl::Status status = Uninstall(**found, Why::kRemoved);
    if (!status.ok()) return status;
  }
  return written.status();
}

auto SegmentLog::Install(const RecordHeader& record,
                         const RecordHeader* expected)
    -> absl::StatusOr<Installed> {
  absl::MutexLock key_lock(&KeyLock(record.key));
  absl::StatusOr<std::optional<RecordHeader>> old =
      index_->Get(record.shard, record.key);
  if (!old.ok()) return old.status();
  if (expected != nullptr && *old != *expected) return Installed::kNone;
  absl::Status status =
      expected == nullptr ? index_->Put(record) : index_->Move(record);
  if (!status.ok()) return status;
  const bool held = options_.holds && options_.holds(record.shard, record.key);
  absl::MutexLock lock(&mutex_);
  if (expected != nullptr) {
    policy_->OnMoved(PlaceOf(*expected), PlaceOf(record));
    return Installed::kReplaced;
  }
  if (old->has_value()) policy_->OnDead(PlaceOf(**old));
  policy_->OnLive({PlaceOf(record), RecordBytes(record.payload_bytes),
                   EvictionHashOf(record.key), held});
  return old->has_value() ? Installed::kReplaced : Installed::kNew;
}

absl::Status SegmentLog::Uninstall(const RecordHeader& record, Why why) {
  absl::Status status = index_->Erase(record.shard, record.key);
  if (!status.ok()) return status;
  absl::MutexLock lock(&mutex_);
  if (why == Why::kEvicted) {
    policy_->OnEvicted(PlaceOf(record));
  } else {
    policy_->OnDead(PlaceOf(record));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> SegmentLog::IsIndexed(const RecordHeader& record) {
  const absl::StatusOr<std::optional<RecordHeader>> now =
      index_->Get(record.shard, record.key);
  if (!now.ok()) return now.status();
  return *now == record;
}

absl::StatusOr<bool> SegmentLog::DropDamaged(const RecordHeader& record) {
  absl::MutexLock key_lock(&KeyLock(record.key));
  const absl::StatusOr<bool> indexed = IsIndexed(record);
  if (!indexed.ok() || !*indexed) return indexed;
  absl::Status status = Uninstall(record, Why::kRemoved);
  if (!status.ok()) return status;
  absl::MutexLock lock(&mutex_);
  ++counters_.damaged;
  return true;
}

absl::StatusOr<SegmentLog::Place> SegmentLog::Locate(ShardId shard,
                                                     const ChunkKey& key) {
  std::optional<RecordHeader> before;
  for (;;) {
    absl::StatusOr<std::optional<RecordHeader>> record =
        index_->Get(shard, key);
    if (!record.ok()) return record.status();
    if (!record->has_value()) {
      return absl::NotFoundError("the disk tier does not hold the object");
    }
    absl::MutexLock lock(&mutex_);
    const auto found = segments_.find((*record)->segment);
    if (found != segments_.end()) {
      policy_->OnAccess(PlaceOf(**record));
      return Place{**std::move(record), found->second};
    }
    // The segment was deleted after the index had answered. The index entry was
    // changed before that, so the next answer differs.
    KDN_CHECK(before != *record, "an indexed record has its segment");
    before = *std::move(record);
  }
}

void SegmentLog::Touch(ShardId shard, const ChunkKey& key) {
  const absl::StatusOr<std::optional<RecordHeader>> record =
      index_->Get(shard, key);
  if (!record.ok() || !record->has_value()) return;
  absl::MutexLock lock(&mutex_);
  policy_->OnAccess(PlaceOf(**record));
}

bool SegmentLog::Holds(const RecordHeader& record) const {
  const absl::StatusOr<std::optional<RecordHeader>> now =
      index_->Get(record.shard, record.key);
  return now.ok() && now->has_value() && (*now)->version == record.version;
}

absl::Status SegmentLog::HeldChanged(ShardId shard, const ChunkKey& key) {
  // An eviction asks holds() under this lock too. So the record is either gone
  // now, or the eviction will see the hold.
  absl::MutexLock key_lock(&KeyLock(key));
  const absl::StatusOr<std::optional<RecordHeader>> record =
      index_->Get(shard, key);
  if (!record.ok()) return record.status();
  if (!record->has_value()) {
    return absl::NotFoundError("the disk tier does not hold the object");
  }
  if (!options_.holds) return absl::OkStatus();
  const bool held = options_.holds(shard, key);
  absl::MutexLock lock(&mutex_);
  policy_->OnHeld(PlaceOf(**record), held);
  return absl::OkStatus();
}

absl::Status SegmentLog::Amend(const RecordHeader& object, bool sync) {
  {
    // A copy that a cleaning makes meanwhile has the sequence of the record, so
    // the amendment counts for the copy too.
    absl::MutexLock key_lock(&KeyLock(object.key));
    absl::StatusOr<std::optional<RecordHeader>> record =
        index_->Get(object.shard, object.key);
    if (!record.ok()) return record.status();
    if (!record->has_value() || (*record)->version != object.version) {
      return absl::NotFoundError("the disk tier does not hold that version");
    }
    (*record)->durability = object.durability;
    (*record)->expiry_unix_us = object.expiry_unix_us;
    if (absl::Status status = index_->Amend(**record); !status.ok()) {
      return status;
    }
  }
  return sync ? index_->Sync() : absl::OkStatus();
}

absl::Status SegmentLog::ForEach(
    absl::FunctionRef<void(const RecordHeader&)> visit) {
  return index_->ForEach(
      [visit](const RecordHeader&, const RecordHeader& amended) {
        visit(amended);
      });
}

absl::Status SegmentLog::Sync() {
  // A segment counts as synced from the beginning of its sync: a second caller
  // waits for the end.
  absl::MutexLock sync(&sync_);
  std::vector<SegmentPtr> unsynced;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [number, segment] : segments_) {
      if (!segment->unsynced) continue;
      segment->unsynced = policy_->IsBeingWritten(number);
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
  const DiskPolicy::Totals totals = policy_->totals();
  counters.live_bytes = totals.live_bytes;
  counters.segment_bytes = totals.segment_bytes;
  counters.segments = totals.segments;
  counters.objects = totals.objects;
  return counters;
}

void SegmentLog::CheckInvariants() const {
  absl::MutexLock lock(&mutex_);
  policy_->CheckInvariants();
  for (const auto& [number, segment] : segments_) {
    KDN_CHECK(policy_->HasSegment(number), "a file has no segment");
  }
  KDN_CHECK(policy_->totals().segments == segments_.size(),
            "a segment has no file");
}

}  // namespace kdn::storage
