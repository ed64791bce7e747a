// The tombstones in segments: how a cleaning keeps them when it deletes their
// segment, and how they are counted after a start.
#include <set>
#include <utility>
#include <vector>

#include "kv/host_memory.h"
#include "kv/log.h"
#include "storage/segment_log.h"

namespace kdn::storage {

absl::Status SegmentLog::KeepTombstones(const Segment& segment, BlockIo& io) {
  uint64_t end = 0;
  {
    absl::MutexLock lock(&mutex_);
    if (!policy_->KeepsTombstones(segment.number)) return absl::OkStatus();
    end = policy_->EndOf(segment.number);
  }
  std::set<SegmentPtr> targets;
  // A tombstone is kept even if the object was stored again: an eviction of the
  // new record would leave no tombstone.
  absl::Status status =
      ForEachTombstone(segment, end, {}, io, [&](RecordHeader tombstone) {
        const absl::StatusOr<Written> written =
            WriteTombstone(std::move(tombstone), io);
        if (written.ok()) targets.insert(written->claim.segment);
        return written.status();
      });
  for (const SegmentPtr& target : targets) {
    if (status.ok()) status = SyncFile(*target);
  }
  if (status.ok()) {
    absl::MutexLock lock(&mutex_);
    policy_->OnTombstonesKept(segment.number);
  }
  return status;
}

absl::Status SegmentLog::ForEachTombstone(
    const Segment& segment, uint64_t end, absl::Span<const PlacedRecord> live,
    BlockIo& io, absl::FunctionRef<absl::Status(RecordHeader)> visit) const {
  const absl::StatusOr<PrivateMemory> page = PrivateMemory::Create(kRecordPage);
  if (!page.ok()) return page.status();
  for (uint64_t at = 0; at < end;) {
    while (!live.empty() && live.front().place.offset < at) {
      live.remove_prefix(1);
    }
    if (!live.empty() && live.front().place.offset == at) {
      at += live.front().bytes;
      continue;
    }
    absl::StatusOr<RecordHeader> header =
        ReadHeaderAt(segment, at, end, page->bytes(), io);
    if (!header.ok() && !absl::IsDataLoss(header.status())) {
      return header.status();
    }
    at += header.ok() ? RecordBytes(header->payload_bytes) : kRecordPage;
    if (!header.ok() || header->kind != RecordHeader::Kind::kTombstone) {
      continue;
    }
    absl::Status status = visit(*std::move(header));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

bool SegmentLog::CountTombstones(BlockIo& io) {
  SegmentPtr segment;
  std::vector<PlacedRecord> live;
  uint64_t end = 0;
  {
    absl::MutexLock lock(&mutex_);
    const std::optional<uint32_t> number = policy_->NextToCount();
    if (!number) return false;
    segment = segments_.at(*number);
    live = policy_->LiveIn(*number);
    end = policy_->EndOf(*number);
  }
  uint64_t bytes = 0;
  const absl::Status status =
      ForEachTombstone(*segment, end, live, io, [&bytes](const RecordHeader&) {
        bytes += kRecordPage;
        return absl::OkStatus();
      });
  if (!status.ok()) LogWarning("storage.tombstones", status.message());
  absl::MutexLock lock(&mutex_);
  policy_->OnTombstonesCounted(segment->number, bytes, status.ok());
  return true;
}

}  // namespace kdn::storage
