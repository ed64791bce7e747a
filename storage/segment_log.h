#ifndef KDN_STORAGE_SEGMENT_LOG_H_
#define KDN_STORAGE_SEGMENT_LOG_H_

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "storage/block_io.h"
#include "storage/disk_index.h"
#include "storage/disk_policy.h"
#include "storage/record.h"

namespace kdn::storage {

// One append-only file. The file is closed when its last user lets go, so that
// it can be deleted while it is read.
struct Segment {
  ~Segment();
  uint32_t number = 0;
  int fd = -1;
  std::string path;
  // The size of the file when the log was opened; 0 for a fresh file.
  uint64_t end_at_start = 0;
  // The size that was allocated before the first write; 0 once the file is
  // trimmed. The log's mutex guards this field and the next one.
  uint64_t taken = 0;
  bool unsynced = false;  // records were written since the last sync
};

// The name of a segment's file.
std::string SegmentName(uint32_t number);
// The same status, with the file's path in front of the message.
absl::Status InFile(const Segment& segment, const absl::Status& status);
// Bytes that were written to the file survive a power loss once this returns.
absl::Status SyncFile(const Segment& segment);

// The segments of one directory and the index over them. The log appends,
// finds, reads and removes objects, and makes room. Only the index decides
// which objects exist: a record that the index does not point to is dead space.
// A DiskPolicy decides where a record goes and which segment is cleaned or
// evicted; the log does the I/O.
//
// Invariant: the live records of the policy are the records that the index
// points to, except for an object that a thread has locked by its key.
//
// Invariant: a tombstone lies behind every record that it cancels, copies
// included. So a tombstone can go once its segment is the oldest.
//
// Thread-safe. Calls block on the disk: make them on disk threads only. The
// caller keeps writes and removals of one key in order. A thread takes the
// locks in this order: maintenance_ (one eviction or cleaning at a time), the
// lock of a key (a change of its index entry), roll_ (one fresh segment at a
// time), sync_ (one Sync at a time), mutex_ (memory only). A read takes mutex_
// alone, unless it finds damage. No thread creates or syncs a file, or moves a
// record, while it holds mutex_.
class SegmentLog {
 public:
  struct Options {
    std::string directory;
    uint64_t capacity_bytes = 0;
    uint64_t segment_bytes = 0;
    double clean_below_live = 0.5;
    std::function<void(const RecordHeader&)> on_evicted;
    // As in DiskTier.
    std::function<bool(ShardId, const ChunkKey&)> holds;
    // Whether a record is held while the log is opened: at that time `holds`
    // may not know of the hold yet.
    std::function<bool(const RecordHeader&)> held_at_start;
  };
  static absl::StatusOr<std::unique_ptr<SegmentLog>> Open(Options options);
  ~SegmentLog();

  // `object` comes from HeaderOf; the log fills in the fields that HeaderOf
  // leaves out.
  absl::Status Append(RecordHeader object,
                      absl::Span<const std::byte> padded_payload, bool sync,
                      BlockIo& io);
  absl::Status Read(const ObjectInfo& info, absl::Span<std::byte> padded,
                    BlockIo& io);
  // Writes a tombstone even if the index does not have the object, as long as a
  // segment may hold a dead record of the object. Not OK: the object may still
  // be in the index, or a rebuild of the index may bring it back. Another
  // Remove then tries again.
  absl::Status Remove(ShardId shard, const ChunkKey& key, BlockIo& io);
  // Counts a read that a copy in memory has answered.
  void Touch(ShardId shard, const ChunkKey& key);
  // Whether the index has the record's object, in the same version.
  bool Holds(const RecordHeader& record) const;
  // Asks holds() again and tells the policy. OK: the object is on disk, and
  // stays there while holds() is true. NOT_FOUND: it is not on disk.
  absl::Status HeldChanged(ShardId shard, const ChunkKey& key);
  // Gives the object the TTL and the durability class of `object`, which comes
  // from HeaderOf. Changes the index, and no record. NOT_FOUND: this version is
  // not on disk.
  absl::Status Amend(const RecordHeader& object, bool sync);
  // The records have the TTLs and the durability classes of their amendments.
  absl::Status ForEach(absl::FunctionRef<void(const RecordHeader&)> visit);
  // When this returns OK, every change that was answered before the call
  // survives a power loss.
  absl::Status Sync();
  // Rewrites the live records of one segment that is mostly dead, or that has
  // tombstones to get rid of, and deletes the segment. Before that, counts the
  // tombstones that earlier runs have left in one segment. False when there was
  // no segment to count and none to clean.
  absl::StatusOr<bool> CleanOne(BlockIo& io);

  struct Counters {
    uint64_t live_bytes = 0, segment_bytes = 0, segments = 0, objects = 0;
    uint64_t evictions = 0, damaged = 0, cleaned = 0, rebuilt = 0;
  };
  Counters counters() const;
  bool direct() const { return direct_; }
  void CheckInvariants() const;

 private:
  using SegmentPtr = std::shared_ptr<Segment>;
  using Purpose = DiskPolicy::Purpose;
  // The place in a segment that one record was given. The segment is not
  // emptied while the claim lives. The claim ends when the index points to the
  // record, or when it is certain that the index never will.
  class Claim {
   public:
    Claim(SegmentLog* log, SegmentPtr segment, uint64_t offset,
          uint64_t sequence)
        : offset(offset),
          sequence(sequence),
          segment(std::move(segment)),
          log_(log) {}
    Claim(Claim&& other) = default;
    ~Claim();
    uint64_t offset;
    uint64_t sequence;
    SegmentPtr segment;  // null once moved from
    // The bytes of the record, if they were not written; else 0.
    uint64_t failed_bytes = 0;

   private:
    SegmentLog* log_;
  };
  struct Written {
    RecordHeader record;
    Claim claim;
  };
  // A record that was copied out of a segment, and its copy.
  struct Moved {
    RecordHeader from;
    Written to;
  };
  explicit SegmentLog(Options options);

  absl::Status LockDirectory();
  absl::Status OpenSegments();
  absl::Status OpenSegmentThatIsThere(uint32_t number);
  absl::Status OpenIndex();
  // DATA_LOSS when the index in the directory is damaged or incomplete.
  absl::Status OpenIndexIn(const std::string& directory);
  // DATA_LOSS when the index has an entry that no log has written.
  absl::Status LoadIndex();
  // Makes a policy that knows the segments as they were at the start, and no
  // records.
  void ResetPolicy() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Tells the policy of these records, oldest first. DATA_LOSS when two of them
  // overlap.
  absl::Status LoadPolicy(std::vector<PlacedRecord> records)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HeldAtStart(const RecordHeader& record) const;

  using NewestRecords = absl::flat_hash_map<RecordKey, RecordHeader>;
  absl::Status Rebuild();
  void ScanSegment(const Segment& segment, absl::Span<std::byte> scratch,
                   BlockIo& io, NewestRecords& newest);
  // The header of the record at this offset. DATA_LOSS when the page holds no
  // header that was written to this store, file and offset; `end` is the end of
  // the segment.
  absl::StatusOr<RecordHeader> ReadHeaderAt(const Segment& segment, uint64_t at,
                                            uint64_t end,
                                            absl::Span<std::byte> page,
                                            BlockIo& io) const;
  static bool PayloadIsWhole(const Segment& segment, const RecordHeader& header,
                             absl::Span<std::byte> block, BlockIo& io);

  // Files: segment_files.cc.
  absl::StatusOr<SegmentPtr> OpenSegment(uint32_t number, bool create);
  // Opens a fresh segment. Does nothing if `seen` is not the open segment any
  // more: then another thread has opened a fresh one.
  absl::Status RollOver(uint32_t seen);
  // Allocates the space of a fresh segment. Writes inside a file run in
  // parallel; ext4 lets writes that grow a file through one at a time.
  void Preallocate(Segment& segment, uint64_t bytes) const;
  // A file that is larger than the records in it, and where its records end.
  struct Untrimmed {
    SegmentPtr segment;
    uint64_t end = 0;
  };
  // The files that have space behind their last record. The caller trims them.
  std::vector<Untrimmed> TakeUntrimmed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void Trim(const Segment& segment, uint64_t end);
  // Gives a failed record's bytes back to the file system.
  static void PunchOut(const Claim& claim, uint64_t record_bytes);
  // Tells the policy how much the file system has left.
  void MeasureFileSystem();

  // Finds room for a record at the end of the open segment. Opens a fresh
  // segment and, for an object, evicts where that is necessary.
  absl::StatusOr<Claim> ClaimSpace(uint64_t record_bytes, Purpose purpose,
                                   BlockIo& io);
  absl::Status NoRoomFor(uint64_t record_bytes) const;
  // Writes the tombstone at the end of the open segment.
  absl::StatusOr<Written> WriteTombstone(RecordHeader tombstone, BlockIo& io);
  absl::StatusOr<Written> WriteAt(Claim claim, RecordHeader header,
                                  absl::Span<const std::byte> padded_payload,
                                  BlockIo& io);
  absl::Status AppendAt(Claim claim, const RecordHeader& object,
                        absl::Span<const std::byte> padded_payload, bool sync,
                        BlockIo& io);
  // Points the index to `record`. `expected` is null for a new object. For a
  // copy, `expected` is the record that was copied: if the index does not point
  // to that record any more, nothing changes and the answer is kNone.
  enum class Installed { kNone, kNew, kReplaced };
  absl::StatusOr<Installed> Install(const RecordHeader& record,
                                    const RecordHeader* expected);
  // The record was installed as kNew, and its append failed afterwards: takes
  // the record out of the index and out of its file. Otherwise the object of a
  // store that failed would be back at the next start.
  void TakeOutFailed(const Written& written);
  enum class Why { kRemoved, kEvicted };
  // Drops the index entry. REQUIRES: the caller has locked the key, and the
  // index has `record`.
  absl::Status Uninstall(const RecordHeader& record, Why why);
  // Drops the index entry of a damaged record, unless the index points to
  // another record by now. True: dropped, and counted as damaged.
  absl::StatusOr<bool> DropDamaged(const RecordHeader& record);
  // Whether the index still points to the record. REQUIRES: the caller has
  // locked the key.
  absl::StatusOr<bool> IsIndexed(const RecordHeader& record);

  // Evicts one segment if an object of so many bytes has no room.
  absl::Status MakeRoom(uint64_t record_bytes, BlockIo& io);
  absl::Status NothingToEvict() const;
  // Moves the records that the policy keeps out of the job's segment, drops the
  // other records and deletes the file.
  absl::Status Empty(const DiskPolicy::Job& job, BlockIo& io)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(maintenance_);
  // Does all of that except for the deletion.
  absl::Status TakeOut(const DiskPolicy::Job& job, const Segment& segment,
                       BlockIo& io) ABSL_EXCLUSIVE_LOCKS_REQUIRED(maintenance_);
  // Copies the records that the policy keeps, and adds the other live records
  // to `rest`.
  absl::Status MoveOut(const DiskPolicy::Job& job, const Segment& segment,
                       std::vector<Moved>& moved,
                       std::vector<RecordHeader>& rest, BlockIo& io)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(maintenance_);
  // Drops the records, except for those that are held by now: these are moved.
  absl::Status DropAll(const std::vector<RecordHeader>& records,
                       const Segment& segment, BlockIo& io)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(maintenance_);
  // Copies one live record. A record whose payload is damaged is dropped.
  absl::Status Move(const RecordHeader& record, const Segment& segment,
                    std::vector<Moved>& moved, BlockIo& io);
  // The live record at this place, by the segment's header page and the index.
  // Nullopt: the record is dead by now.
  absl::StatusOr<std::optional<RecordHeader>> LiveRecordAt(
      const Segment& segment, const PlacedRecord& placed,
      absl::Span<std::byte> page, BlockIo& io);
  // The same, but found by a scan of the index. For a header page that cannot
  // be read.
  absl::StatusOr<std::optional<RecordHeader>> IndexedRecordAt(
      const PlacedRecord& placed);
  bool AskKeeps(const DiskPolicy::Job& job, const RecordHeader& record);
  // Nullopt: the record is dead by now.
  absl::StatusOr<std::optional<Written>> CopyRecord(const RecordHeader& record,
                                                    const Segment& from,
                                                    BlockIo& io);
  // Room for a copy of the record. Nullopt: the record is dead by now.
  absl::StatusOr<std::optional<Claim>> ClaimForCopy(const RecordHeader& record,
                                                    BlockIo& io);
  // Evicts the record. False: the record is held, and has to be moved.
  absl::StatusOr<bool> Evict(const RecordHeader& record);
  // Drops a damaged record, and reports it like an evicted one.
  absl::Status LoseDamaged(const RecordHeader& record);
  // Syncs the copies and points the index to them.
  absl::Status InstallMoved(std::vector<Moved> moved);
  // Writes the tombstones of the segment again, as far as they are still
  // necessary, and syncs them: the segment is about to be deleted.
  absl::Status KeepTombstones(const Segment& segment, BlockIo& io);
  // Calls `visit` for the tombstones in the segment up to `end`, in order,
  // until a call fails. `live` has records that need not be read, sorted by
  // offset. A page without a record is passed over; a page that cannot be read
  // is an error.
  absl::Status ForEachTombstone(
      const Segment& segment, uint64_t end, absl::Span<const PlacedRecord> live,
      BlockIo& io, absl::FunctionRef<absl::Status(RecordHeader)> visit) const;
  // Counts the tombstones of one segment that was there at the start. False:
  // all such segments are counted. An eviction may delete the segment during
  // the count.
  bool CountTombstones(BlockIo& io);
  // Where an object lies. The file stays open while the pointer lives.
  struct Place {
    RecordHeader record;
    SegmentPtr segment;
  };
  // NOT_FOUND when the index does not have the object.
  absl::StatusOr<Place> Locate(ShardId shard, const ChunkKey& key);
  absl::Mutex& KeyLock(const ChunkKey& key) {
    return key_locks_[(OwnBits(key) >> 8) % key_locks_.size()];
  }

  const Options options_;
  uint64_t store_id_ = 0;
  bool direct_ = true;
  int lock_fd_ = -1;
  std::unique_ptr<DiskIndex> index_;
  absl::Mutex maintenance_;
  std::array<absl::Mutex, 64> key_locks_;
  absl::Mutex roll_ ABSL_ACQUIRED_AFTER(maintenance_);
  uint32_t next_segment_ ABSL_GUARDED_BY(roll_) = 1;
  absl::Mutex sync_ ABSL_ACQUIRED_AFTER(roll_);
  mutable absl::Mutex mutex_ ABSL_ACQUIRED_AFTER(sync_);
  std::optional<DiskPolicy> policy_ ABSL_GUARDED_BY(mutex_);  // never empty
  std::map<uint32_t, SegmentPtr> segments_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_sequence_ ABSL_GUARDED_BY(mutex_) = 0;
  Counters counters_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_SEGMENT_LOG_H_
