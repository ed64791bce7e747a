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

// One append-only file. Closed with the last user, so that a segment may be
// deleted under a reader.
struct Segment {
  ~Segment();
  uint32_t number = 0;
  int fd = -1;
  std::string path;
  // Bytes that the file had when the log was opened; 0 for a fresh file.
  uint64_t end_at_start = 0;
  // Bytes that were taken for the file in advance.
  uint64_t taken = 0;
  bool unsynced = false;  // guarded by the log's mutex
};

// The same error, with the name of the file it is of.
absl::Status InFile(const Segment& segment, const absl::Status& status);
// What was written to the file survives a power loss.
absl::Status SyncFile(const Segment& segment);

// The segments of one directory and the index over them: appends, finds, reads,
// removes, and makes room. Only the index decides what is there; a record it
// does not point to is dead space. What is written where, cleaned and evicted
// is decided by a DiskPolicy; the log does the I/O.
//
// Invariant: the live records of the policy are those that the index points to,
// but for an object whose key lock is held.
//
// Thread-safe; calls block on the disk, so they are made on disk threads only.
// Callers keep writes and removals of one key in order. Locks, in the order
// they are taken: maintenance_ (one eviction or cleaning at a time), roll_ (one
// fresh segment at a time), the lock of a key (a change of its index entry),
// mutex_ (memory only). No file is made, synced or moved under mutex_, the only
// lock that a read takes.
class SegmentLog {
 public:
  struct Options {
    std::string directory;
    uint64_t capacity_bytes = 0;
    uint64_t segment_bytes = 0;
    double clean_below_live = 0.5;
    std::function<void(const RecordHeader&)> on_evicted;
    // As in DiskTier. HeldChanged says when the answer has changed.
    std::function<bool(ShardId, const ChunkKey&)> holds;
    // Of records that are there at the start, before anyone can ask `holds`.
    std::function<bool(const RecordHeader&)> held_at_start;
  };
  static absl::StatusOr<std::unique_ptr<SegmentLog>> Open(Options options);
  ~SegmentLog();

  // `object` is what HeaderOf gives; the log fills in the rest.
  absl::Status Append(RecordHeader object,
                      absl::Span<const std::byte> padded_payload, bool sync,
                      BlockIo& io);
  absl::Status Read(const ObjectInfo& info, absl::Span<std::byte> padded,
                    BlockIo& io);
  absl::Status Remove(ShardId shard, const ChunkKey& key, BlockIo& io);
  // The object was read elsewhere, from a copy in memory.
  void Touch(ShardId shard, const ChunkKey& key);
  // Whether the index has the record's object, of the same version.
  bool Holds(const RecordHeader& record) const;
  // Asks holds() again.
  void HeldChanged(ShardId shard, const ChunkKey& key);
  absl::Status ForEach(absl::FunctionRef<void(const RecordHeader&)> visit);
  absl::Status Sync();
  // Rewrites the live records of one segment that is mostly dead and deletes
  // it. False when there is none.
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
  // A part of a segment given to one record. Until it is let go of, which is
  // after the index points there or never will, the segment is not emptied.
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
  // DATA_LOSS when what is there is damaged or not whole.
  absl::Status OpenIndexIn(const std::string& directory);
  absl::Status LoadIndex();
  // A policy that knows the segments as they were at the start, no records.
  void ResetPolicy() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Tells the policy of these records, by age.
  void LoadPolicy(std::vector<PlacedRecord> records)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HeldAtStart(const RecordHeader& record) const;

  using NewestRecords = absl::flat_hash_map<RecordKey, RecordHeader>;
  absl::Status Rebuild();
  void ScanSegment(const Segment& segment, absl::Span<std::byte> scratch,
                   BlockIo& io, NewestRecords& newest);
  // The header of a record of this very store, file and offset. DATA_LOSS when
  // there is none; `end` is the end of the segment.
  absl::StatusOr<RecordHeader> ReadHeaderAt(const Segment& segment, uint64_t at,
                                            uint64_t end,
                                            absl::Span<std::byte> page,
                                            BlockIo& io) const;
  static bool PayloadIsWhole(const Segment& segment, const RecordHeader& header,
                             absl::Span<std::byte> block, BlockIo& io);

  // Files.
  absl::StatusOr<SegmentPtr> OpenSegment(uint32_t number, bool create);
  // Opens a fresh segment, unless another thread has replaced `seen` by then.
  absl::Status RollOver(uint32_t seen);
  // Takes file space for a fresh segment at once. Writes inside the size of a
  // file go side by side; those that grow it, ext4 lets through one at a time.
  void Preallocate(Segment& segment, uint64_t bytes) const;
  // Cuts the file to what was given to records.
  static void Trim(const Segment& segment, uint64_t end);
  // Gives a failed record's bytes back to the file system.
  static void PunchOut(const Claim& claim, uint64_t record_bytes);
  // Tells the policy how much the file system has left.
  void MeasureFileSystem();

  // Room for a record at the end of the open segment, rolling over and evicting
  // as needed.
  absl::StatusOr<Claim> ClaimSpace(uint64_t record_bytes, Purpose purpose,
                                   BlockIo& io);
  absl::Status NoRoomFor(uint64_t record_bytes) const;
  // ClaimSpace and WriteAt.
  absl::StatusOr<Written> WriteRecord(
      RecordHeader header, absl::Span<const std::byte> padded_payload,
      Purpose purpose, BlockIo& io);
  absl::StatusOr<Written> WriteAt(Claim claim, RecordHeader header,
                                  absl::Span<const std::byte> padded_payload,
                                  BlockIo& io);
  absl::Status AppendAt(Claim claim, const RecordHeader& object,
                        absl::Span<const std::byte> padded_payload, bool sync,
                        BlockIo& io);
  // Points the index to `record`. With `expected`, only if it still points
  // there: the record is then a copy of that one. False: it does not.
  absl::StatusOr<bool> Install(const RecordHeader& record,
                               const RecordHeader* expected);
  enum class Why { kRemoved, kEvicted };
  // Drops the index entry if it is still `expected` (null: whatever it is).
  absl::StatusOr<bool> Uninstall(ShardId shard, const ChunkKey& key,
                                 const RecordHeader* expected, Why why);
  void CountDamaged();

  // Makes room for an object of so many bytes, as far as one eviction does.
  absl::Status MakeRoom(uint64_t record_bytes, BlockIo& io);
  absl::Status NothingToEvict() const;
  // Moves what the policy keeps out of the job's segment, drops the rest,
  // deletes the file.
  absl::Status Empty(const DiskPolicy::Job& job, BlockIo& io)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(maintenance_);
  absl::Status MoveOut(const DiskPolicy::Job& job, const SegmentPtr& segment,
                       std::vector<Moved>& moved, BlockIo& io)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(maintenance_);
  // The live record there, by the segment's own header and the index. Nullopt:
  // it has died by now.
  absl::StatusOr<std::optional<RecordHeader>> LiveRecordAt(
      const Segment& segment, const PlacedRecord& placed,
      absl::Span<std::byte> page, BlockIo& io);
  // The same by a scan of the index, where the segment does not say.
  absl::StatusOr<std::optional<RecordHeader>> IndexedRecordAt(
      const PlacedRecord& placed);
  bool AskKeeps(const DiskPolicy::Job& job, const RecordHeader& record);
  absl::StatusOr<Written> CopyRecord(const RecordHeader& record,
                                     const Segment& from, BlockIo& io);
  absl::Status DropRecord(const RecordHeader& record, bool damaged);
  // Syncs the copies and points the index to them.
  absl::Status InstallMoved(std::vector<Moved> moved, BlockIo& io);
  void KeepTombstones(const Segment& segment, BlockIo& io);
  // Where an object lies; the file stays open with the pointer. NOT_FOUND.
  struct Place {
    RecordHeader record;
    SegmentPtr segment;
  };
  absl::StatusOr<Place> Locate(ShardId shard, const ChunkKey& key);
  absl::Mutex& KeyLock(const ChunkKey& key) {
    return key_locks_[key.bytes()[1] % key_locks_.size()];
  }

  const Options options_;
  uint64_t store_id_ = 0;
  bool direct_ = true;
  int lock_fd_ = -1;
  std::unique_ptr<DiskIndex> index_;
  absl::Mutex maintenance_;
  absl::Mutex roll_ ABSL_ACQUIRED_AFTER(maintenance_);
  uint32_t next_segment_ ABSL_GUARDED_BY(roll_) = 1;
  std::array<absl::Mutex, 64> key_locks_;
  mutable absl::Mutex mutex_;
  std::optional<DiskPolicy> policy_ ABSL_GUARDED_BY(mutex_);  // never none
  std::map<uint32_t, SegmentPtr> segments_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_sequence_ ABSL_GUARDED_BY(mutex_) = 0;
  Counters counters_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_SEGMENT_LOG_H_
