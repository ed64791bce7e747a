#ifndef KDN_STORAGE_DISK_POLICY_H_
#define KDN_STORAGE_DISK_POLICY_H_

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "storage/eviction_lru.h"
#include "storage/eviction_policy.h"

namespace kdn::storage {

// Where a record begins. An open log uses each segment number once, so a place
// names one record. After a restart, the log may use the number of a deleted
// segment again: that segment's index entries were deleted before its file.
struct RecordPlace {
  uint32_t segment = 0;
  uint64_t offset = 0;

  auto operator<=>(const RecordPlace&) const = default;
};

// A record that the index points to.
struct PlacedRecord {
  RecordPlace place;
  uint64_t bytes = 0;  // header page and payload, whole pages
  uint64_t hash = 0;   // as in Cached
  bool held = false;
};

// Decides how a log of append-only segments uses its space: where the next
// record goes, which segment is cleaned or evicted, and which records of that
// segment are moved. Events in, decisions out: the policy has no I/O, no locks
// and no clock. The driver (SegmentLog, a test, a simulator) carries out the
// decisions and reports the results.
//
// Three rules divide the capacity:
//
// * A new object must leave a reserve of one whole segment free. Any segment
//   can be emptied into the reserve, so a held record never blocks an eviction.
// * Moved records may use the reserve. An emptied segment gives back at least
//   the space that its moved records took. The segments of an earlier run may
//   leave no reserve, because the capacity is smaller now. Then moved records
//   may exceed the capacity, by one segment at most.
// * Tombstones are always let in, on top of the capacity: a removal must not
//   need an eviction. When tombstones take more than a share of the capacity,
//   the oldest segments are cleaned until the tombstones can go.
//
// An eviction chooses the segment that frees the most: its dead bytes and its
// cold records. Cold records are those that the eviction policy would give up
// first, up to a share of all bytes that are not held. Held and hot records are
// moved. So a hot object keeps its copy however old its segment is. Hot records
// go only when nothing else can be freed.
//
// Representation: a record is a slot of the eviction policy and 16 bytes here;
// a segment lists the slots of its live records by offset. The policy keeps no
// keys: the driver reads them from the segment's headers.
//
// Calls come under the lock that reads take, so with LRU none of them walks
// over all records: each event marks a few records as cold, and each call of
// MarkForEviction marks a bounded number more.
//
// Invariants (CheckInvariants): the live, held and cold bytes of a segment are
// the sums over its records; the records of a segment do not overlap and lie
// below its end; objects and moved records together stay within the capacity,
// or within the larger limit that the segments of an earlier run need.
// Thread-compatible.
template <EvictionPolicy Order>
class BasicDiskPolicy {
 public:
  struct Options {
    uint64_t capacity_bytes = 0;
    // The size at which a segment is full. A smaller size is used where the
    // capacity or the file system has no room for kSegmentsMin segments of this
    // size.
    uint64_t segment_bytes = 0;
    // A segment with a smaller share of live bytes is cleaned.
    double clean_below_live = 0.5;
    // The cold records' share of the bytes that are not held.
    double cold_share = 0.25;
  };
  static constexpr uint64_t kSegmentsMin = 4;

  explicit BasicDiskPolicy(const Options& options);

  // At the start: adds a segment that exists. Afterwards OnLive reports its
  // records, and OnTombstonesCounted reports its tombstones.
  void AddSegment(uint32_t segment, uint64_t end);
  // A segment of AddSegment for which OnTombstonesCounted was not called yet.
  // Nullopt: no such segment is left.
  std::optional<uint32_t> NextToCount() const;
  // The segment's tombstones have so many bytes. `all` is false when a part of
  // the segment could not be read. Ignored if the segment was deleted or
  // counted in the meantime.
  void OnTombstonesCounted(uint32_t segment, uint64_t bytes, bool all);

  // --- Writing

  enum class Purpose { kObject, kMove, kTombstone };
  struct Placement {
    enum class Kind {
      kPlaced,    // write the record at `place`, then call OnWritten
      kRollOver,  // open a fresh segment, call OnOpened, ask again
      kNoRoom,    // perform the job of NextEviction, ask again
      kTooLarge,  // the record does not fit into an empty tier
    };
    Kind kind = Kind::kNoRoom;
    RecordPlace place;
  };
  Placement Place(uint64_t record_bytes, Purpose purpose);
  // Whether Place would let in an object of this size now.
  bool HasRoom(uint64_t record_bytes) const;
  // A fresh, empty segment takes the next records. REQUIRES: its number is
  // above all other numbers.
  void OnOpened(uint32_t segment);
  // The writer of a placed record has finished: the index points to the record,
  // or never will. Until this call, the segment is not emptied.
  void OnWritten(RecordPlace place);
  // The writer of a placed record has failed: nothing of these bytes counts.
  // Instead of OnWritten. A later record may be placed there. So failing writes
  // do not use up the room, and evict nothing for it.
  void OnWriteFailed(RecordPlace place, uint64_t record_bytes);
  // The record at this place is a tombstone of so many bytes.
  void OnTombstone(RecordPlace place, uint64_t bytes);

  // --- Records

  // The index points to the record from now on.
  void OnLive(const PlacedRecord& record);
  // The index does not point to the record any more: the object was removed or
  // replaced.
  void OnDead(RecordPlace place);
  // The record was dropped to make room.
  void OnEvicted(RecordPlace place);
  // The index points to `to` instead of `from`.
  void OnMoved(RecordPlace from, RecordPlace to);
  // These two ignore a place without a live record.
  void OnAccess(RecordPlace place);
  void OnHeld(RecordPlace place, bool held);

  // --- Making room

  struct Job {
    enum class Kind { kClean, kEvict };
    Kind kind = Kind::kClean;
    uint32_t segment = 0;
    // Hot records are dropped too, because they cannot be moved.
    bool drop_hot = false;
  };
  // Marks the records that go first when an object of so many bytes needs room.
  // Each call takes a bounded time. Call again until the answer is true, and
  // let reads take the lock between the calls.
  bool MarkForEviction(uint64_t record_bytes);
  // The segment to evict. REQUIRES: MarkForEviction has returned true. Nullopt:
  // nothing can be freed, and the write has to be refused; the next call then
  // tries the failed segments again. There is one job at a time: the driver
  // ends it with OnEmptied or OnEmptyFailed.
  std::optional<Job> NextEviction();
  // The segment to clean; all its live records are moved. Nullopt: no segment
  // is worth it.
  std::optional<Job> NextCleaning();
  // The live records of a segment, by offset.
  std::vector<PlacedRecord> LiveIn(uint32_t segment) const;
  // Whether the current job moves this record of its segment. False for a dead
  // record.
  bool Keeps(RecordPlace place) const;
  // Whether the tombstones of a segment have to be written again when the
  // segment goes. Those of the oldest segment need not: a tombstone lies behind
  // every record that it cancels, so no such record is left in another segment.
  bool KeepsTombstones(uint32_t segment) const;
  // The tombstones of the job's segment are written again. Another job on this
  // segment need not write them, even if this one fails.
  void OnTombstonesKept(uint32_t segment);
  // The segment of the job is deleted. REQUIRES: it has no live record.
  void OnEmptied();
  // The job failed and would fail again: the disk cannot read or write a
  // record. The segment is passed over until less has to be moved out of it, a
  // fresh segment is opened (not for a job), or NextEviction finds no other
  // segment.
  void OnEmptyFailed();
  // No segment is passed over any more: the disk may have recovered.
  void RetryFailed();

  // The file system has so many free bytes.
  void OnFileSystemRoom(uint64_t free_bytes);
  // The file system refused a record: it is full.
  void OnFileSystemFull();

  // --- Numbers

  struct Totals {
    uint64_t live_bytes = 0;
    uint64_t segment_bytes = 0;  // dead records included
    uint64_t segments = 0;
    uint64_t objects = 0;
    uint64_t tombstone_bytes = 0;
  };
  Totals totals() const;
  uint32_t open_segment() const { return open_; }  // 0: none
  bool HasSegment(uint32_t segment) const {
    return segments_.contains(segment);
  }
  // Whether some bytes belong neither to a live record nor to a tombstone.
  bool MayHoldDeadRecords() const { return live_ + tombstones_ < total_; }
  uint64_t EndOf(uint32_t segment) const;
  bool IsBeingWritten(uint32_t segment) const;
  // The size that a fresh segment may grow to.
  uint64_t FreshSegmentBytes() const;
  uint64_t reserve_bytes() const { return SegmentBytes(); }
  void CheckInvariants() const;

 private:
  struct Record {
    uint32_t segment = 0;
    uint32_t page = 0;
    uint32_t pages = 0;
    bool held = false;
    bool cold = false;  // evicted first, unless it is held
  };
  static_assert(sizeof(Record) == 16);
  struct Segment {
    uint64_t end = 0;  // bytes given out to records
    uint64_t live = 0;
    uint64_t held = 0;
    uint64_t cold = 0;  // of records that are cold and not held
    uint64_t tombstones = 0;
    int writers = 0;
    // After a failed job: the bytes that the job still had to move. The segment
    // is passed over until a job has fewer bytes to move. Nullopt: no job has
    // failed.
    std::optional<uint64_t> stuck;
    // True until the tombstones that an earlier run has left in the segment are
    // counted.
    bool uncounted = false;
    // The segment may hold tombstones that `tombstones` does not count.
    bool may_hide_tombstones = false;
    // The failed records that have others behind them: offset -> bytes.
    std::map<uint64_t, uint64_t> failed;
    // All tombstones of the segment have copies in younger segments.
    bool tombstones_kept = false;
    std::vector<Slot> records;  // the live ones, by offset
  };
  using Segments = std::map<uint32_t, Segment>;

  static uint64_t BytesOf(const Record& record);
  Record& At(Slot slot) { return records_[slot.value()]; }
  const Record& At(Slot slot) const { return records_[slot.value()]; }
  Segment& SegmentAt(uint32_t segment);
  const Segment& SegmentAt(uint32_t segment) const;
  // The capacity, or less when the file system has less.
  uint64_t Limit() const;
  // What moved records may fill.
  uint64_t MoveLimit() const;
  uint64_t SegmentBytes() const;
  uint64_t TombstonesMax() const;
  // The free bytes for records that are moved.
  uint64_t RoomToMove() const;
  // kNoSlot: no live record begins there.
  Slot Find(RecordPlace place) const;
  void Link(Slot slot);
  void Unlink(Slot slot);
  // Adds the record to the byte counts of its segment and of all segments, or
  // takes it off; `times` is 1 or -1.
  void Count(const Record& record, Segment& segment, int times);
  // Changes `held` or `cold` of a record and the counts with it.
  template <typename Change>
  void Update(Slot slot, Change change);
  void Forget(RecordPlace place, bool evicted);
  // Marks at most so many records as cold, held records included, until at
  // least `bytes_min` bytes and the share of Options are cold. False: more
  // marks are necessary.
  bool MarkCold(uint64_t bytes_min, int marks_max);
  std::optional<Job> ChooseEviction();
  // The segment that frees the most when it is evicted; 0: none frees anything.
  uint32_t BestToEvict(bool drop_hot) const;
  std::optional<Job> Begin(Job job);
  uint64_t ToMove(const Segment& segment, const Job& job) const;
  bool MayEmpty(typename Segments::const_iterator at, uint64_t to_move) const;
  // The tombstones that have to be written again when the segment goes.
  uint64_t TombstonesKept(typename Segments::const_iterator at) const;
  uint32_t EmptiestToClean() const;
  void CheckSegment(uint32_t number, const Segment& segment) const;

  const uint64_t capacity_bytes_;
  const uint64_t segment_bytes_max_;
  const double clean_below_live_;
  const double cold_share_;
  Order order_;
  std::vector<Record> records_;  // by slot of `order_`
  Segments segments_;            // oldest first
  uint32_t open_ = 0;
  std::optional<Job> job_;
  uint64_t total_ = 0;
  uint64_t live_ = 0;
  uint64_t held_ = 0;
  uint64_t cold_ = 0;
  uint64_t tombstones_ = 0;
  int uncounted_ = 0;  // segments
  // The bytes of the segments of AddSegment, plus the largest of them. Falls
  // with each segment that goes.
  uint64_t start_limit_ = 0;
  uint64_t largest_at_start_ = 0;
  // The bytes of segments that fit into the file system, as far as is known.
  uint64_t file_system_max_ = UINT64_MAX;
  // NextCleaning found no segment, and nothing has happened since that makes a
  // segment worth a cleaning.
  bool clean_ = false;
};

using DiskPolicy = BasicDiskPolicy<LruPolicy>;

}  // namespace kdn::storage

#endif  // KDN_STORAGE_DISK_POLICY_H_
