#include "storage/disk_policy.h"

#include <algorithm>
#include <concepts>
#include <iterator>
#include <utility>

#include "kv/check.h"
#include "kv/invariants.h"
#include "storage/eviction_s3fifo.h"
#include "storage/record.h"

namespace kdn::storage {
namespace {

// Tombstones may take this part of the capacity before the oldest segments are
// cleaned for them.
constexpr uint64_t kTombstoneShare = 64;

// The records that one event marks as cold. An event adds at most one record,
// or takes at most one off the cold ones, so two marks catch up.
constexpr int kMarksAnEvent = 2;
// The records that one call of MarkForEviction marks at most: a bound on the
// time under the lock that reads take.
constexpr int kMarksACall = 1024;

uint64_t PagesOf(uint64_t bytes) {
  KDN_CHECK(bytes % kRecordPage == 0, "records are whole pages");
  return bytes / kRecordPage;
}

}  // namespace

template <EvictionPolicy Order>
BasicDiskPolicy<Order>::BasicDiskPolicy(const Options& options)
    : capacity_bytes_(options.capacity_bytes),
      segment_bytes_max_(options.segment_bytes),
      clean_below_live_(options.clean_below_live),
      cold_share_(options.cold_share),
      order_(options.capacity_bytes / kRecordPage) {}

template <EvictionPolicy Order>
void BasicDiskPolicy<Order>::AddSegment(uint32_t segment, uint64_t end) {
  KDN_CHECK(segment > 0 && !segments_.contains(segment),
            "a segment is added once, and its number is not 0");
  Segment& added = segments_[segment];
  added.end = end;
  added.uncounted = true;
  added.may_hide_tombstones = true;
  total_ += end;
  ++uncounted_;
  largest_at_start_ = std::max(largest_at_start_, end);
  start_limit_ = total_ + largest_at_start_;
}

template <EvictionPolicy Order>
std::optional<uint32_t> BasicDiskPolicy<Order>::NextToCount() const {
  if (uncounted_ == 0) return std::nullopt;
  const auto found =
      std::find_if(segments_.begin(), segments_.end(),
                   [](const auto& it) { return it.second.uncounted; });
  KDN_CHECK(found != segments_.end(), "uncounted segments are miscounted");
  return found->first;
}

template <EvictionPolicy Order>
void BasicDiskPolicy<Order>::OnTombstonesCounted(uint32_t segment,
                                                 uint64_t bytes, bool all) {
  const auto found = segments_.find(segment);
  if (found == segments_.end() || !found->second.uncounted) return;
  Segment& counted = found->second;
  counted.uncounted = false;
  counted.may_hide_tombstones = !all;
  counted.tombstones += bytes;
  tombstones_ += bytes;
  --uncounted_;
  clean_ = false;
  KDN_DCHECK_INVARIANTS(*this);
}

template <EvictionPolicy Order>
uint64_t BasicDiskPolicy<Order>::BytesOf(const Record& record) {
  return uint64_t{record.pages} * kRecordPage;
}

template <EvictionPolicy Order>
auto BasicDiskPolicy<Order>::SegmentAt(uint32_t segment) -> Segment& {
  const auto found = segments_.find(segment);
  KDN_CHECK(found != segments_.end(), "the segment is there");
  return found->second;
}

template <EvictionPolicy Order>
auto BasicDiskPolicy<Order>::SegmentAt(uint32_t segment) const
    -> const Segment& {
  const auto found = segments_.find(segment);
  KDN_CHECK(found != segments_.end(), "the segment is there");
  return found->second;
}

template <EvictionPolicy Order>
uint64_t BasicDiskPolicy<Order>::Limit() const {
  return std::min(capacity_bytes_, file_system_max_);
}

template <EvictionPolicy Order>
uint64_t BasicDiskPolicy<Order>::MoveLimit() const {
  return std::min(std::max(capacity_bytes_, start_limit_), file_system_max_);
}

template <EvictionPolicy Order>
uint64_t BasicDiskPolicy<Order>::SegmentBytes() const {
  return std::min(segment_bytes_max_,
                  Limit() / kSegmentsMin / kRecordPage * kRecordPage);
}

template <EvictionPolicy Order>
uint64_t BasicDiskPolicy<Order>::TombstonesMax() const {
  return std::max(SegmentBytes() / 4, capacity_bytes_ / kTombstoneShare);
}

template <EvictionPolicy Order>
uint64_t BasicDiskPolicy<Order>::RoomToMove() const {
  const uint64_t used = total_ - tombstones_;
  return MoveLimit() > used ? MoveLimit() - used : 0;
}

template <EvictionPolicy Order>
bool BasicDiskPolicy<Order>::HasRoom(uint64_t record_bytes) const {
  return total_ + record_bytes + SegmentBytes() <= Limit();
}

template <EvictionPolicy Order>
auto BasicDiskPolicy<Order>::Place(uint64_t record_bytes, Purpose purpose)
    -> Placement {
  using Kind = typename Placement::Kind;
  KDN_CHECK(PagesOf(record_bytes) > 0, "a record has a header page");
  if (purpose == Purpose::kObject) {
    if (record_bytes + SegmentBytes() > Limit()) {
      return {Kind::kTooLarge, {}};
    }
    if (!HasRoom(record_bytes)) return {Kind::kNoRoom, {}};
  }
  if (purpose == Purpose::kMove && record_bytes > RoomToMove()) {
    return {Kind::kNoRoom, {}};
  }
  if (open_ == 0) return {Kind::kRollOver, {}};
  Segment& open = SegmentAt(open_);
  if (open.end > 0 && open.end + record_bytes > SegmentBytes()) {
    return {Kind::kRollOver, {}};
  }
  const RecordPlace place{open_, open.end};
  open.end += record_bytes;
  ++open.writers;
  total_ += record_bytes;
  return {Kind::kPlaced, place};
}

template <EvictionPolicy Order>
void BasicDiskPolicy<Order>::OnOpened(uint32_t segment) {
  KDN_CHECK(segments_.empty() || segment > segments_.rbegin()->first,
            "segments are numbered in the order they are opened");
  // A segment that a job opens is no sign that the disk has recovered.
  if (!job_) RetryFailed();
  clean_ = false;
  segments_[segment];
  open_ = segment;
  KDN_DCHECK_INVARIANTS(*this);
}

template <EvictionPolicy Order>
void BasicDiskPolicy<Order>::OnWritten(RecordPlace place) {
  Segment& segment = SegmentAt(place.segment);
  KDN_CHECK(segment.writers > 0, "a record is written once");
  --segment.writers;
  clean_ = false;
}

template <EvictionPolicy Order>
void BasicDiskPolicy<Order>::OnWriteFailed(RecordPlace place,
                                           uint64_t record_bytes) {
  OnWritten(place);
  Segment& segment = SegmentAt(place.segment);
  segment.failed.emplace(place.offset, record_bytes);
  while (!segment.failed.empty()) {
    const auto last = std::prev(segment.failed.end());
    if (last->first + last->second != segment.end) break;
    segment.end -= last->second;
    total_ -= last->second;
    segment.failed.erase(last);
  }
  KDN_DCHECK_INVARIANTS(*this);
}

template <EvictionPolicy Order>
void BasicDiskPolicy<Order>::OnTombstone(RecordPlace place, uint64_t bytes) {
  SegmentAt(place.segment).tombstones += bytes;
  tombstones_ += bytes;
}

template <EvictionPolicy Order>
Slot BasicDiskPolicy<Order>::Find(RecordPlace place) const {
  const auto segment = segments_.find(place.segment);
  if (segment == segments_.end()) return kNoSlot;
  const std::vector<Slot>& slots = segment->second.records;
  const uint64_t page = PagesOf(place.offset);
  const auto at = std::lower_bound(
      slots.begin(), slots.end(), page,
      [this](Slot slot, uint64_t p) { return At(slot).page < p; });
  return at != slots.end() && At(*at).page == page ? *at : kNoSlot;
}

template <EvictionPolicy Order>
void BasicDiskPolicy<Order>::Link(Slot slot) {
  const Record& record = At(slot);
  Segment& segment = SegmentAt(record.segment);
  const uint64_t bytes = BytesOf(record);
  KDN_CHECK(record.page * kRecordPage + bytes <= segment.end,
            "a record lies in its segment");
  const auto at = std::upper_bound(
      segment.records.begin(), segment.records.end(), record.page,
      [this](uint32_t page, Slot other) { return page < At(other).page; });
  segment.records.insert(at, slot);
  Count(record, segment, 1);
}

template <EvictionPolicy Order>
void BasicDiskPolicy<Order>::Count(const Record& record, Segment& segment,
                                   int times) {
  const auto add = [bytes = BytesOf(record) * static_cast<uint64_t>(times)](
                       uint64_t& of_segment, uint64_t& of_all) {
    of_segment += bytes;
    of_all += bytes;
  };
  add(segment.live, live_);
  if (record.held) add(segment.held, held_);
  if (record.cold && !record.held) add(segment.cold, cold_);
}

template <EvictionPolicy Order>
template <typename Change>
void BasicDiskPolicy<Order>::Update(Slot slot, Change change) {
  Segment& segment = SegmentAt(At(slot).segment);
  Count(At(slot), segment, -1);
  change(At(slot));
  Count(At(slot), segment, 1);
}

template <EvictionPolicy Order>
void BasicDiskPolicy<Order>::Unlink(Slot slot) {
  const Record& record = At(slot);
  Segment& segment = SegmentAt(record.segment);
  const auto at = std::lower_bound(
      segment.records.begin(), segment.records.end(), record.page,
      [this](Slot other, uint32_t page) { return At(other).page < page; });
  KDN_CHECK(at != segment.records.end() && *at == slot,
            "a segment lists its live records");
  segment.records.erase(at);
  Count(record, segment, -1);
  clean_ = false;
}

template <EvictionPolicy Order>
void BasicDiskPolicy<Order>::OnLive(const PlacedRecord& record) {
  const auto pages = static_cast<uint32_t>(PagesOf(record.bytes));
  const Slot slot = order_.Insert(Cached{record.hash, pages});
  if (slot.value() >= records_.size()) records_.resize(slot.value() + 1);
  At(slot) = Record{record.place.segment,
                    static_cast<uint32_t>(PagesOf(record.place.offset)), pages,
                    record.held, false};
  Link(slot);
  MarkCold(0, kMarksAnEvent);
}

template <EvictionPolicy Order>
void BasicDiskPolicy<Order>::Forget(RecordPlace place, bool evicted) {
  const Slot slot = Find(place);
  KDN_CHECK(slot != kNoSlot, "only a live record can go");
  Unlink(slot);
  if (evicted) {
    order_.Evict(slot);
  } else {
    order_.Erase(slot);
  }
  MarkCold(0, kMarksAnEvent);
}

template <EvictionPolicy Order>
void BasicDiskPolicy<Order>::OnDead(RecordPlace place) {
  Forget(place, false);
}

template <EvictionPolicy Order>
void BasicDiskPolicy<Order>::OnEvicted(RecordPlace place) {
  Forget(place, true);
}

template <EvictionPolicy Order>
void BasicDiskPolicy<Order>::OnMoved(RecordPlace from, RecordPlace to) {
  const Slot slot = Find(from);
  KDN_CHECK(slot != kNoSlot, "only a live record can be moved");
  Unlink(slot);
  At(slot).segment = to.segment;
  At(slot).page = static_cast<uint32_t>(PagesOf(to.offset));
  Link(slot);
}

template <EvictionPolicy Order>
void BasicDiskPolicy<Order>::OnAccess(RecordPlace place) {
  const Slot slot = Find(place);
  if (slot == kNoSlot) return;
  order_.Access(slot);
  if (!At(slot).cold) return;
  Update(slot, [](Record& record) { record.cold = false; });
  MarkCold(0, kMarksAnEvent);
}

template <EvictionPolicy Order>
void BasicDiskPolicy<Order>::OnHeld(RecordPlace place, bool held) {
  const Slot slot = Find(place);
  if (slot == kNoSlot || At(slot).held == held) return;
  Update(slot, [held](Record& record) { record.held = held; });
  MarkCold(0, kMarksAnEvent);
}

template <EvictionPolicy Order>
bool BasicDiskPolicy<Order>::MarkCold(uint64_t bytes_min, int marks_max) {
  const uint64_t not_held = live_ - held_;
  const uint64_t goal = std::min(
      not_held,
      std::max(bytes_min, static_cast<uint64_t>(
                              cold_share_ * static_cast<double>(not_held))));
  for (; cold_ < goal; --marks_max) {
    if (marks_max == 0) return false;
    Slot next = kNoSlot;
    if constexpr (std::same_as<Order, LruPolicy>) {
      next = order_.MarkNext();
    } else {
      next = order_.Victim(
          [this](Slot slot) { return !At(slot).held && !At(slot).cold; });
    }
    KDN_CHECK(next != kNoSlot, "a record is left to be marked");
    Update(next, [](Record& record) { record.cold = true; });
  }
  return true;
}

template <EvictionPolicy Order>
uint64_t BasicDiskPolicy<Order>::TombstonesKept(
    typename Segments::const_iterator at) const {
  const Segment& segment = at->second;
  const bool none = at == segments_.begin() || segment.tombstones_kept;
  return none ? 0 : segment.tombstones;
}

template <EvictionPolicy Order>
bool BasicDiskPolicy<Order>::MayEmpty(typename Segments::const_iterator at,
                                      uint64_t to_move) const {
  const Segment& segment = at->second;
  if (at->first == open_ || segment.writers > 0) return false;
  if (segment.stuck && to_move >= *segment.stuck) return false;
  return to_move == 0 || to_move <= RoomToMove();
}

template <EvictionPolicy Order>
uint64_t BasicDiskPolicy<Order>::ToMove(const Segment& segment,
                                        const Job& job) const {
  if (job.kind == Job::Kind::kClean) return segment.live;
  return job.drop_hot ? segment.held : segment.live - segment.cold;
}

template <EvictionPolicy Order>
uint32_t BasicDiskPolicy<Order>::BestToEvict(bool drop_hot) const {
  uint32_t best = 0;
  double most = 0;
  for (auto at = segments_.begin(); at != segments_.end(); ++at) {
    const auto& [number, segment] = *at;
    const uint64_t to_move =
        ToMove(segment, Job{Job::Kind::kEvict, number, drop_hot});
    if (!MayEmpty(at, to_move)) continue;
    const uint64_t kept = to_move + TombstonesKept(at);
    if (kept > 0 && kept >= segment.end) continue;  // frees nothing
    // When hot records have to go as well, the oldest segment goes first.
    if (drop_hot) return number;
    const double freed = segment.end == 0
                             ? 1.0
                             : 1.0 - static_cast<double>(kept) /
                                         static_cast<double>(segment.end);
    if (freed > most) {
      most = freed;
      best = number;
    }
  }
  return best;
}

template <EvictionPolicy Order>
auto BasicDiskPolicy<Order>::Begin(Job job) -> std::optional<Job> {
  job_ = job;
  KDN_DCHECK_INVARIANTS(*this);
  return job;
}

template <EvictionPolicy Order>
auto BasicDiskPolicy<Order>::ChooseEviction() -> std::optional<Job> {
  for (const bool drop_hot : {false, true}) {
    const uint32_t best = BestToEvict(drop_hot);
    if (best != 0) return Job{Job::Kind::kEvict, best, drop_hot};
  }
  return std::nullopt;
}

template <EvictionPolicy Order>
bool BasicDiskPolicy<Order>::MarkForEviction(uint64_t record_bytes) {
  return MarkCold(record_bytes, kMarksACall);
}

template <EvictionPolicy Order>
auto BasicDiskPolicy<Order>::NextEviction() -> std::optional<Job> {
  KDN_CHECK(!job_, "one job at a time");
  std::optional<Job> job = ChooseEviction();
  if (!job && open_ != 0) {
    // The records that may go may lie in the open segment.
    const uint32_t open = std::exchange(open_, 0);
    job = ChooseEviction();
    if (!job) open_ = open;
  }
  if (job) return Begin(*job);
  // A full tier opens no fresh segment. So the failed segments are tried again
  // at the next write.
  RetryFailed();
  return std::nullopt;
}

template <EvictionPolicy Order>
void BasicDiskPolicy<Order>::RetryFailed() {
  for (auto& [number, segment] : segments_) segment.stuck.reset();
  clean_ = false;
}

template <EvictionPolicy Order>
uint32_t BasicDiskPolicy<Order>::EmptiestToClean() const {
  uint32_t emptiest = 0;
  double least = clean_below_live_;
  for (auto at = segments_.begin(); at != segments_.end(); ++at) {
    const auto& [number, segment] = *at;
    // If tombstones counted as dead, they would be moved again and again.
    if (segment.uncounted || !MayEmpty(at, segment.live)) continue;
    const uint64_t kept = segment.live + TombstonesKept(at);
    const double share =
        segment.end == 0
            ? 0.0
            : static_cast<double>(kept) / static_cast<double>(segment.end);
    if (share < least) {
      least = share;
      emptiest = number;
    }
  }
  return emptiest;
}

template <EvictionPolicy Order>
auto BasicDiskPolicy<Order>::NextCleaning() -> std::optional<Job> {
  KDN_CHECK(!job_, "one job at a time");
  if (clean_) return std::nullopt;
  uint32_t segment = EmptiestToClean();
  const auto oldest = segments_.begin();
  if (segment == 0 && tombstones_ > TombstonesMax() &&
      MayEmpty(oldest, oldest->second.live)) {
    segment = oldest->first;
  }
  clean_ = segment == 0;
  if (clean_) return std::nullopt;
  return Begin(Job{Job::Kind::kClean, segment, false});
}

template <EvictionPolicy Order>
std::vector<PlacedRecord> BasicDiskPolicy<Order>::LiveIn(
    uint32_t segment) const {
  std::vector<PlacedRecord> live;
  for (const Slot slot : SegmentAt(segment).records) {
    const Record& record = At(slot);
    live.push_back({{segment, uint64_t{record.page} * kRecordPage},
                    BytesOf(record),
                    order_.hash(slot),
                    record.held});
  }
  return live;
}

template <EvictionPolicy Order>
bool BasicDiskPolicy<Order>::Keeps(RecordPlace place) const {
  const Slot slot = Find(place);
  KDN_CHECK(job_ && job_->segment == place.segment,
            "a record of the job's segment");
  if (slot == kNoSlot) return false;
  if (job_->kind == Job::Kind::kClean || At(slot).held) return true;
  return !job_->drop_hot && !At(slot).cold;
}

template <EvictionPolicy Order>
bool BasicDiskPolicy<Order>::KeepsTombstones(uint32_t segment) const {
  const Segment& s = SegmentAt(segment);
  return segment != segments_.begin()->first && !s.tombstones_kept &&
         (s.may_hide_tombstones || s.tombstones > 0);
}

template <EvictionPolicy Order>
void BasicDiskPolicy<Order>::OnTombstonesKept(uint32_t segment) {
  KDN_CHECK(job_ && job_->segment == segment,
            "the job writes the tombstones of its segment");
  SegmentAt(segment).tombstones_kept = true;
}

template <EvictionPolicy Order>
void BasicDiskPolicy<Order>::OnEmptied() {
  KDN_CHECK(job_.has_value(), "a job is under way");
  const auto at = segments_.find(job_->segment);
  KDN_CHECK(at != segments_.end() && at->second.records.empty() &&
                at->second.writers == 0,
            "an emptied segment has no live record");
  total_ -= at->second.end;
  start_limit_ = std::min(start_limit_, total_ + largest_at_start_);
  tombstones_ -= at->second.tombstones;
  uncounted_ -= at->second.uncounted ? 1 : 0;
  segments_.erase(at);
  job_.reset();
  clean_ = false;
  KDN_DCHECK_INVARIANTS(*this);
}

template <EvictionPolicy Order>
void BasicDiskPolicy<Order>::OnEmptyFailed() {
  KDN_CHECK(job_.has_value(), "a job is under way");
  Segment& segment = SegmentAt(job_->segment);
  segment.stuck = ToMove(segment, *job_);
  job_.reset();
  clean_ = false;
  KDN_DCHECK_INVARIANTS(*this);
}

template <EvictionPolicy Order>
void BasicDiskPolicy<Order>::OnFileSystemRoom(uint64_t free_bytes) {
  file_system_max_ =
      free_bytes < UINT64_MAX - total_ ? total_ + free_bytes : UINT64_MAX;
}

template <EvictionPolicy Order>
void BasicDiskPolicy<Order>::OnFileSystemFull() {
  file_system_max_ = std::min(file_system_max_, total_);
}

template <EvictionPolicy Order>
auto BasicDiskPolicy<Order>::totals() const -> Totals {
  return Totals{live_, total_, segments_.size(), order_.size(), tombstones_};
}

template <EvictionPolicy Order>
uint64_t BasicDiskPolicy<Order>::EndOf(uint32_t segment) const {
  return SegmentAt(segment).end;
}

template <EvictionPolicy Order>
bool BasicDiskPolicy<Order>::IsBeingWritten(uint32_t segment) const {
  return SegmentAt(segment).writers > 0;
}

template <EvictionPolicy Order>
uint64_t BasicDiskPolicy<Order>::FreshSegmentBytes() const {
  return std::min(SegmentBytes(), Limit() > total_ ? Limit() - total_ : 0);
}

template <EvictionPolicy Order>
void BasicDiskPolicy<Order>::CheckSegment(uint32_t number,
                                          const Segment& segment) const {
  uint64_t live = 0, held = 0, cold = 0, end = 0;
  for (const Slot slot : segment.records) {
    const Record& record = At(slot);
    KDN_CHECK(record.segment == number, "a record is in another segment");
    KDN_CHECK(record.page * kRecordPage >= end, "records overlap");
    end = record.page * kRecordPage + BytesOf(record);
    live += BytesOf(record);
    held += record.held ? BytesOf(record) : 0;
    cold += record.cold && !record.held ? BytesOf(record) : 0;
  }
  KDN_CHECK(end <= segment.end, "a record lies behind the end");
  KDN_CHECK(
      live == segment.live && held == segment.held && cold == segment.cold,
      "a segment's bytes are miscounted");
  uint64_t failed = 0;
  for (const auto& [offset, bytes] : segment.failed) {
    KDN_CHECK(offset + bytes < segment.end, "a failed record is the last one");
    failed += bytes;
  }
  KDN_CHECK(live + segment.tombstones + failed <= segment.end,
            "a segment holds more than was given out");
}

template <EvictionPolicy Order>
void BasicDiskPolicy<Order>::CheckInvariants() const {
  uint64_t total = 0, live = 0, held = 0, cold = 0, tombstones = 0;
  uint64_t objects = 0;
  int uncounted = 0;
  for (const auto& [number, segment] : segments_) {
    CheckSegment(number, segment);
    total += segment.end;
    live += segment.live;
    held += segment.held;
    cold += segment.cold;
    uncounted += segment.uncounted ? 1 : 0;
    tombstones += segment.tombstones;
    objects += segment.records.size();
  }
  KDN_CHECK(total == total_ && live == live_ && held == held_ &&
                cold == cold_ && tombstones == tombstones_ &&
                uncounted == uncounted_,
            "the totals are miscounted");
  KDN_CHECK(objects == order_.size(), "the eviction policy has other records");
  KDN_CHECK(open_ == 0 || segments_.rbegin()->first == open_,
            "the segment that is written is the youngest");
  KDN_CHECK(
      !job_ || (segments_.contains(job_->segment) && job_->segment != open_ &&
                segments_.find(job_->segment)->second.writers == 0),
      "a segment that is emptied is not written");
  order_.CheckInvariants();
}

template class BasicDiskPolicy<LruPolicy>;
template class BasicDiskPolicy<S3FifoPolicy>;

}  // namespace kdn::storage
