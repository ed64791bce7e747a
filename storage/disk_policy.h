#ifndef KDN_STORAGE_DISK_POLICY_H_
#define KDN_STORAGE_DISK_POLICY_H_

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "storage/eviction_lru.h"
#include "storage/eviction_policy.h"

namespace kdn::storage {

// Where a record begins. A number of a segment is used once in the life of a
// store, so a place names one record for ever.
struct RecordPlace {
  uint32_t segment = 0;
  uint64_t offset = 0;

  auto operator<=>(const RecordPlace&) const = default;
};

// What the policy is told of a record that the index points to.
struct PlacedRecord {
  RecordPlace place;
  uint64_t bytes = 0;  // header page and payload, whole pages
  uint64_t hash = 0;   // as in Cached
  bool held = false;
};

// Decides what a log of append-only segments does with its room: where the next
// record goes, which segment is cleaned or evicted, and which of its records
// are written again. Events in, decisions out: no I/O, no locks, no clock. The
// driver (SegmentLog, a test, a simulator) does what the policy says and
// reports what came of it.
//
// Three limits divide the capacity:
//
// * Objects are let in while a reserve of one whole segment stays free. A
//   segment can always be emptied into the reserve, so a record that is held
//   never stands in the way of an eviction.
// * Records that are moved may use the reserve. Emptying a segment gives back
//   at least what it took.
// * Tombstones are always let in, and come on top: a removal must not need an
//   eviction. When tombstones take more than a share of the capacity, the
//   oldest segments are cleaned until the tombstones can go.
//
// A segment is evicted for what it frees: its dead bytes and its cold records.
// Cold are the records that the eviction policy would give up first, up to a
// share of all bytes that may go. The records that are held and those that are
// hot are moved. So hot objects keep their copy whatever the age of their
// segment. Only when nothing else can be freed do hot records go.
//
// Representation: a record is a slot of the eviction policy and 16 bytes here;
// a segment lists the slots of its live records by offset. Keys are not kept:
// the driver reads them from the headers of the segment.
//
// Invariants (CheckInvariants): a segment's live and held bytes are the sums
// over its records; records of a segment do not overlap and lie below its end;
// objects and moved records together stay within the capacity.
// Thread-compatible.
template <EvictionPolicy Order>
class BasicDiskPolicy {
 public:
  struct Options {
    uint64_t capacity_bytes = 0;
    // Less where the capacity, or the file system, does not have room for
    // kSegmentsMin of them.
    uint64_t segment_bytes = 0;
    // A segment with a smaller share of live bytes is cleaned.
    double clean_below_live = 0.5;
    // The share of the bytes that may go which counts as cold.
    double cold_share = 0.25;
  };
  static constexpr uint64_t kSegmentsMin = 4;

  explicit BasicDiskPolicy(const Options& options);

  // At start: a segment that is there. Its records follow, as OnLive.
  void AddSegment(uint32_t segment, uint64_t end);

  // --- Writing

  enum class Purpose { kObject, kMove, kTombstone };
  struct Placement {
    enum class Kind {
      kPlaced,    // write the record at `place`, then call OnWritten
      kRollOver,  // make a fresh segment, call OnOpened, ask again
      kNoRoom,    // ask NextEviction, do what it says, ask again
      kTooLarge,  // the record does not fit even when nothing else is there
    };
    Kind kind = Kind::kNoRoom;
    RecordPlace place;
  };
  Placement Place(uint64_t record_bytes, Purpose purpose);
  // Whether Place would let in an object now.
  bool HasRoom(uint64_t record_bytes) const;
  // A fresh, empty segment takes the next records. REQUIRES: a number above all
  // others.
  void OnOpened(uint32_t segment);
  // The writer of the record is done with it: the index points to the record
  // by now, or never will. Until then its segment is not emptied.
  void OnWritten(RecordPlace place);
  // The record there is a tombstone of so many bytes.
  void OnTombstone(RecordPlace place, uint64_t bytes);

  // --- Records

  // The index points to the record from now on.
  void OnLive(const PlacedRecord& record);
  // The index does not point there any more: the object was removed or
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
    // Hot records go too: there is no room to move them.
    bool drop_hot = false;
  };
  // The segment to evict so that an object of so many bytes gets in. Nullopt
  // when nothing can be freed: the write has to be refused. One job at a time:
  // the driver ends it with OnEmptied or OnEmptyFailed.
  std::optional<Job> NextEviction(uint64_t record_bytes);
  // The segment to clean: its live records are moved. Nullopt when none is
  // worth it.
  std::optional<Job> NextCleaning();
  // Live records of a segment, by offset.
  std::vector<PlacedRecord> LiveIn(uint32_t segment) const;
  // Whether the job under way moves the record, which lies in its segment.
  // False when the record has died.
  bool Keeps(RecordPlace place) const;
  // Whether the tombstones of the segment have to be written again when it
  // goes: some older segment may hold a record that a tombstone takes back.
  bool KeepsTombstones(uint32_t segment) const;
  // The segment of the job is gone. REQUIRES: no live record is in it.
  void OnEmptied();
  // The job failed, and would fail again: the disk does not give a record back
  // or does not take one. The segment is passed over until less has to be moved
  // out of it, or a fresh segment is opened.
  void OnEmptyFailed();

  // The file system has so many bytes left.
  void OnFileSystemRoom(uint64_t free_bytes);
  // The file system refused a record: it holds no more than there is now.
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
  uint64_t EndOf(uint32_t segment) const;
  bool IsBeingWritten(uint32_t segment) const;
  // How much a fresh segment may grow to.
  uint64_t FreshSegmentBytes() const;
  uint64_t reserve_bytes() const { return SegmentBytes(); }
  void CheckInvariants() const;

 private:
  struct Record {
    uint32_t segment = 0;
    uint32_t page = 0;
    uint32_t pages = 0;
    bool held = false;
    bool cold = false;  // as of the last MarkCold
  };
  static_assert(sizeof(Record) == 16);
  struct Segment {
    uint64_t end = 0;  // bytes given out to records
    uint64_t live = 0;
    uint64_t held = 0;
    uint64_t cold = 0;  // as of the last MarkCold
    uint64_t tombstones = 0;
    int writers = 0;
    // The bytes that were still to be moved out when that failed. Nullopt: it
    // may be tried.
    std::optional<uint64_t> stuck;
    bool from_before = false;   // of an earlier run: may hold tombstones
    std::vector<Slot> records;  // live ones, by offset
  };
  using Segments = std::map<uint32_t, Segment>;

  static uint64_t BytesOf(const Record& record);
  Record& At(Slot slot) { return records_[slot.value()]; }
  const Record& At(Slot slot) const { return records_[slot.value()]; }
  Segment& SegmentAt(uint32_t segment);
  const Segment& SegmentAt(uint32_t segment) const;
  // The capacity, or less when the file system has less.
  uint64_t Limit() const;
  uint64_t SegmentBytes() const;
  uint64_t TombstonesMax() const;
  // Free for records that are moved.
  uint64_t RoomToMove() const;
  // kNoSlot: no live record begins there.
  Slot Find(RecordPlace place) const;
  void Link(Slot slot);
  void Unlink(Slot slot);
  void Forget(RecordPlace place, bool evicted);
  void MarkCold(uint64_t bytes_min);
  std::optional<Job> ChooseEviction();
  // What best gains by being evicted so; 0: nothing.
  uint32_t BestToEvict(bool drop_hot) const;
  std::optional<Job> Begin(Job job);
  uint64_t ToMove(const Segment& segment, const Job& job) const;
  bool MayEmpty(typename Segments::const_iterator at, uint64_t to_move) const;
  // Tombstones that have to be written again when the segment goes.
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
  uint64_t tombstones_ = 0;
  // What the file system holds of segments, as far as is known.
  uint64_t file_system_max_ = UINT64_MAX;
  // No segment has become worth a cleaning since NextCleaning found none.
  bool clean_ = false;
};

using DiskPolicy = BasicDiskPolicy<LruPolicy>;

}  // namespace kdn::storage

#endif  // KDN_STORAGE_DISK_POLICY_H_
