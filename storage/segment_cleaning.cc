// How the segment log makes room: evicting the oldest segment, rewriting what
// is left of a segment that is mostly dead. Either way what stays is written
// and indexed anew before the old file goes, so a kill at any moment loses
// nothing.
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "kv/crc32c.h"
#include "kv/host_memory.h"
#include "storage/segment_log.h"

namespace kdn::storage {

absl::Status SegmentLog::MoveRecord(const RecordHeader& record, Segment& from,
                                    BlockIo& io) {
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
  const absl::StatusOr<Written> written =
      WriteRecord(record, payload, true, WhenFull::kFail, io);
  if (!written.ok()) return written.status();
  const absl::StatusOr<bool> installed = Install(written->record, true, record);
  if (!installed.ok() || *installed) return installed.status();
  // Removed or replaced meanwhile. The copy may outlive the tombstone of that
  // removal; one of its own keeps a rebuild from finding it.
  RecordHeader tombstone = record;
  tombstone.kind = RecordHeader::Kind::kTombstone;
  tombstone.payload_bytes = 0;
  tombstone.payload_crc32c = 0;
  return WriteRecord(tombstone, {}, false, WhenFull::kExceed, io).status();
}

absl::Status SegmentLog::Empty(
    const SegmentPtr& segment,
    absl::FunctionRef<bool(ShardId, const ChunkKey&)> keep, BlockIo& io) {
  std::vector<RecordKey> keys;
  {
    absl::MutexLock lock(&mutex_);
    keys.assign(segment->keys.begin(), segment->keys.end());
  }
  for (const auto& [shard, key] : keys) {
    absl::StatusOr<std::optional<RecordHeader>> found = index_->Get(shard, key);
    if (!found.ok()) return found.status();
    if (!found->has_value() || (*found)->segment != segment->number) continue;
    const RecordHeader& record = **found;
    absl::Status moved = absl::NotFoundError("not kept");
    if (keep(shard, key)) moved = MoveRecord(record, *segment, io);
    if (moved.ok()) continue;
    if (!absl::IsNotFound(moved) && !absl::IsDataLoss(moved)) return moved;
    const absl::StatusOr<bool> dropped = Uninstall(shard, key, record);
    if (!dropped.ok()) return dropped.status();
    if (!*dropped) continue;
    {
      absl::MutexLock lock(&mutex_);
      ++(absl::IsDataLoss(moved) ? counters_.damaged : counters_.evictions);
    }
    if (options_.on_evicted) options_.on_evicted(record);
  }
  KeepTombstones(segment, io);
  absl::MutexLock lock(&mutex_);
  KDN_CHECK(segment->keys.empty(), "an emptied segment has no live record");
  unlink(segment->path.c_str());
  total_bytes_ -= segment->end;
  segments_.erase(segment->number);
  return absl::OkStatus();
}

void SegmentLog::KeepTombstones(const SegmentPtr& segment, BlockIo& io) {
  {
    absl::MutexLock lock(&mutex_);
    // Nothing older is left that a rebuild could bring back.
    if (segments_.begin()->first == segment->number) return;
  }
  const absl::StatusOr<PrivateMemory> page = PrivateMemory::Create(kRecordPage);
  if (!page.ok()) return;
  for (uint64_t at = 0; at < segment->end;) {
    const std::optional<RecordHeader> header =
        ReadHeaderAt(*segment, at, page->bytes(), io);
    at += header ? RecordBytes(header->payload_bytes) : kRecordPage;
    if (!header || header->kind != RecordHeader::Kind::kTombstone) continue;
    // Also of what was put again since: evicted, that leaves no tombstone. Lost
    // to a full file system it could only revive an object in a rebuild.
    WriteRecord(*header, {}, false, WhenFull::kExceed, io)
        .status()
        .IgnoreError();
  }
}

absl::Status SegmentLog::MakeRoom(Full full, uint64_t bytes, BlockIo& io) {
  absl::MutexLock maintenance(&maintenance_);
  {
    absl::MutexLock lock(&mutex_);
    const bool fits = total_bytes_ + bytes <= options_.capacity_bytes;
    // Whoever came before made room for more than itself.
    if (full == Full::kCapacity && fits) return absl::OkStatus();
    if (fits && segments_.size() < 2) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the file system of ", options_.directory, " is full"));
    }
  }
  return EvictOldest(io);
}

absl::Status SegmentLog::EvictOldest(BlockIo& io) {
  std::vector<SegmentPtr> oldest_first;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [number, segment] : segments_) {
      if (segment != active_ && segment->writers == 0) {
        oldest_first.push_back(segment);
      }
    }
  }
  absl::Status failed;
  for (const SegmentPtr& segment : oldest_first) {
    {
      absl::MutexLock lock(&mutex_);
      // What is held has to go somewhere else before its segment can go.
      const uint64_t held = HeldBytes(*segment);
      const bool oldest = segment == segments_.begin()->second;
      const uint64_t kept = held + (oldest ? 0 : segment->tombstones);
      const bool frees_nothing = kept > 0 && kept >= segment->end;
      if (frees_nothing || !MayMove(*segment, held)) continue;
    }
    absl::Status status = Empty(
        segment,
        [this](ShardId shard, const ChunkKey& key) {
          return options_.holds && options_.holds(shard, key);
        },
        io);
    if (status.ok()) return status;
    failed.Update(status);
    absl::MutexLock lock(&mutex_);
    if (absl::IsUnavailable(status)) segment->stuck_with = HeldBytes(*segment);
  }
  if (!failed.ok()) return failed;
  return absl::ResourceExhaustedError(
      absl::StrCat("the disk tier's ", options_.capacity_bytes,
                   " bytes are full of objects that may not be evicted"));
}

bool SegmentLog::MayMove(const Segment& segment, uint64_t bytes) const {
  // Tombstones may have exceeded the capacity: nothing to move always fits.
  return bytes == 0 || (bytes != segment.stuck_with &&
                        total_bytes_ + bytes <= options_.capacity_bytes);
}

uint64_t SegmentLog::HeldBytes(const Segment& segment) const {
  uint64_t held = 0;
  if (!options_.holds) return held;
  for (const auto& [shard, key] : segment.keys) {
    if (!options_.holds(shard, key)) continue;
    const auto record = index_->Get(shard, key);
    if (record.ok() && record->has_value()) {
      held += RecordBytes((*record)->payload_bytes);
    }
  }
  return held;
}

SegmentLog::SegmentPtr SegmentLog::FindEmptiest() const {
  SegmentPtr emptiest;
  double least = options_.clean_below_live;
  for (const auto& [number, segment] : segments_) {
    if (segment == active_ || segment->writers > 0) continue;
    // What is left is written before the file goes: it needs room.
    if (!MayMove(*segment, segment->live)) continue;
    // Tombstones outlive a cleaning, unless nothing older is left: counted
    // as dead they would be rewritten for ever.
    const bool oldest = number == segments_.begin()->first;
    const uint64_t kept = segment->live + (oldest ? 0 : segment->tombstones);
    const double live =
        segment->end == 0
            ? 0.0
            : static_cast<double>(kept) / static_cast<double>(segment->end);
    if (live < least) {
      least = live;
      emptiest = segment;
    }
  }
  return emptiest;
}

absl::StatusOr<bool> SegmentLog::CleanOne(BlockIo& io) {
  absl::MutexLock maintenance(&maintenance_);
  absl::Status failed;
  for (;;) {
    SegmentPtr emptiest;
    {
      absl::MutexLock lock(&mutex_);
      emptiest = FindEmptiest();
    }
    if (emptiest == nullptr) break;
    const absl::Status status = Empty(
        emptiest, [](ShardId, const ChunkKey&) { return true; }, io);
    absl::MutexLock lock(&mutex_);
    if (status.ok()) {
      ++counters_.cleaned;
      return true;
    }
    if (!absl::IsUnavailable(status)) return status;
    failed.Update(status);
    emptiest->stuck_with = emptiest->live;
  }
  if (!failed.ok()) return failed;
  return false;
}

}  // namespace kdn::storage
