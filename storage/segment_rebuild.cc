// How the index is rebuilt from the segments. Each object gets its record with
// the highest sequence; records with damaged payloads do not count.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "kv/crc32c.h"
#include "kv/host_memory.h"
#include "storage/segment_log.h"

namespace kdn::storage {
namespace {

constexpr size_t kScanBytes = 1u << 20;

// Whether record `a` counts rather than record `b` of the same object. `a` lies
// behind `b`. Of a record and its copy, the copy counts: the copy has the later
// TTL. A store may have a tombstone with the sequence of a record: earlier
// builds wrote such a tombstone when a cleaning had copied a record that was
// then removed.
bool Outranks(const RecordHeader& a, const RecordHeader& b) {
  KDN_DCHECK(a.record_key() == b.record_key(),
             "only records of one object have a rank");
  if (a.sequence != b.sequence) return a.sequence > b.sequence;
  return a.kind == RecordHeader::Kind::kTombstone ||
         b.kind != RecordHeader::Kind::kTombstone;
}

}  // namespace

absl::Status SegmentLog::Rebuild() {
  absl::StatusOr<PrivateMemory> memory =
      PrivateMemory::Create(kRecordPage + kScanBytes);
  if (!memory.ok()) return memory.status();
  const absl::Span<std::byte> scratch = memory->bytes();
  const std::unique_ptr<BlockIo> io = MakePosixIo(kScanBytes);
  std::map<uint32_t, SegmentPtr> segments;
  {
    absl::MutexLock lock(&mutex_);
    segments = segments_;
  }
  NewestRecords newest;
  for (const auto& [number, segment] : segments) {
    ScanSegment(*segment, scratch, *io, newest);
  }
  for (const auto& [key, record] : newest) {
    if (record.kind == RecordHeader::Kind::kTombstone) continue;
    if (absl::Status status = index_->Put(record); !status.ok()) return status;
  }
  if (absl::Status status = index_->MarkWhole(); !status.ok()) return status;
  if (absl::Status status = LoadIndex(); !status.ok()) return status;
  absl::MutexLock lock(&mutex_);
  counters_.rebuilt = policy_->totals().objects;
  return absl::OkStatus();
}

void SegmentLog::ScanSegment(const Segment& segment,
                             absl::Span<std::byte> scratch, BlockIo& io,
                             NewestRecords& newest) {
  const absl::Span<std::byte> page = scratch.first(kRecordPage);
  const absl::Span<std::byte> block = scratch.subspan(kRecordPage);
  const uint64_t end = segment.end_at_start;
  for (uint64_t at = 0; at < end;) {
    const absl::StatusOr<RecordHeader> header =
        ReadHeaderAt(segment, at, end, page, io);
    // The next record may begin inside a half-written payload, and good pages
    // may follow a page that cannot be read.
    if (!header.ok() || !PayloadIsWhole(segment, *header, block, io)) {
      at += kRecordPage;
      continue;
    }
    at += RecordBytes(header->payload_bytes);
    const auto [known, is_new] =
        newest.try_emplace(header->record_key(), *header);
    if (!is_new && Outranks(*header, known->second)) known->second = *header;
  }
}

absl::StatusOr<RecordHeader> SegmentLog::ReadHeaderAt(
    const Segment& segment, uint64_t at, uint64_t end,
    absl::Span<std::byte> page, BlockIo& io) const {
  KDN_CHECK(at % kRecordPage == 0 && at < end, "records begin on a page");
  const absl::Span<std::byte> pieces[] = {page};
  if (absl::Status status = io.Read(segment.fd, at, pieces); !status.ok()) {
    return InFile(segment, status);
  }
  absl::StatusOr<RecordHeader> header = DecodeRecordHeader(page);
  if (!header.ok()) return InFile(segment, header.status());
  // Bytes that were written to another store, file or place are no record.
  if (header->store_id != store_id_ || header->segment != segment.number ||
      header->offset != at || RecordBytes(header->payload_bytes) > end - at) {
    return InFile(segment, absl::DataLossError(absl::StrCat(
                               "no record of this file begins at ", at)));
  }
  return header;
}

bool SegmentLog::PayloadIsWhole(const Segment& segment,
                                const RecordHeader& header,
                                absl::Span<std::byte> block, BlockIo& io) {
  KDN_CHECK(block.size() % kRecordPage == 0, "whole pages are read");
  uint32_t crc = 0;
  uint64_t from = header.offset + kRecordPage;
  for (uint64_t left = header.payload_bytes; left > 0;) {
    const uint64_t take = std::min<uint64_t>(left, block.size());
    const uint64_t pages = RecordBytes(take) - kRecordPage;
    const absl::Span<std::byte> run[] = {block.first(pages)};
    if (!io.Read(segment.fd, from, run).ok()) return false;
    crc = ExtendCrc32c(crc, block.first(take));
    from += take;
    left -= take;
  }
  return crc == header.payload_crc32c;
}

}  // namespace kdn::storage
