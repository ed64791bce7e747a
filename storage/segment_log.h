#ifndef KDN_STORAGE_SEGMENT_LOG_H_
#define KDN_STORAGE_SEGMENT_LOG_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "storage/block_io.h"
#include "storage/disk_index.h"
#include "storage/record.h"

namespace kdn::storage {

// One append-only file. Closed with the last user, so that a segment may be
// deleted under a reader.
struct Segment {
  ~Segment();
  uint32_t number = 0;
  int fd = -1;
  std::string path;
  // Guarded by the log's mutex.
  uint64_t end = 0;         // bytes given out to records
  uint64_t live = 0;        // of records the index points to
  uint64_t tombstones = 0;  // of removals written here since the start
  // Writers still filling their part of it: not to be cleaned yet.
  int writers = 0;
  bool unsynced = false;
  // Bytes to be moved out of it when the disk failed: the same would fail
  // again. 0 when it may be tried.
  uint64_t stuck_with = 0;
  absl::flat_hash_set<RecordKey> keys;  // of live records
};

// The same error, with the name of the file it is of.
absl::Status InFile(const Segment& segment, const absl::Status& status);

// The segments of one directory and the index over them: appends, finds, reads,
// removes, and makes room. Only the index decides what is there; a record it
// does not point to is dead space.
//
// Invariant: a segment's live bytes and keys are those of the index entries
// that point into it. Thread-safe; calls block on the disk, so they are made on
// disk threads only. Callers keep calls for one key in order.
class SegmentLog {
 public:
  struct Options {
    std::string directory;
    uint64_t capacity_bytes = 0;
    uint64_t segment_bytes = 0;
    double clean_below_live = 0.5;
    std::function<void(const RecordHeader&)> on_evicted;
    std::function<bool(ShardId, const ChunkKey&)> holds;
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

 private:
  using SegmentPtr = std::shared_ptr<Segment>;
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
  // What to do in a tier that is full. Who is making room cannot ask for it;
  // tombstones are let in: a removal must not need an eviction, and those that
  // are kept are in a segment that is about to go.
  enum class WhenFull { kMakeRoom, kFail, kExceed };
  explicit SegmentLog(Options options) : options_(std::move(options)) {}

  absl::Status LockDirectory();
  absl::Status OpenSegments();
  absl::Status OpenIndex();
  // DATA_LOSS when what is there is damaged or not whole.
  absl::Status OpenIndexIn(const std::string& directory);
  absl::Status LoadIndex();

  using NewestRecords = absl::flat_hash_map<RecordKey, RecordHeader>;
  absl::Status Rebuild();
  void ScanSegment(const Segment& segment, absl::Span<std::byte> scratch,
                   BlockIo& io, NewestRecords& newest);
  // The header of a record of this very store, file and offset, if any.
  std::optional<RecordHeader> ReadHeaderAt(const Segment& segment, uint64_t at,
                                           absl::Span<std::byte> page,
                                           BlockIo& io) const;
  static bool PayloadIsWhole(const Segment& segment, const RecordHeader& header,
                             absl::Span<std::byte> block, BlockIo& io);
  absl::StatusOr<SegmentPtr> OpenSegment(uint32_t number, bool create);

  // Room for a record at the end of the active segment, rolling over and
  // evicting as needed.
  absl::StatusOr<Claim> ClaimSpace(uint64_t record_bytes, WhenFull when_full,
                                   BlockIo& io);
  // Takes file space for a fresh segment at once. Writes inside the size of a
  // file go side by side; those that grow it, ext4 lets through one at a time.
  void Preallocate(const Segment& segment)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Gives back what no record was put into.
  static void Trim(const Segment& segment);
  // An active segment that the record fits.
  absl::Status RollOver(uint64_t record_bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What is full: `bytes` do not fit the capacity, or the file system said so.
  enum class Full { kCapacity, kFileSystem };
  absl::Status MakeRoom(Full full, uint64_t bytes, BlockIo& io);
  // Evicts the oldest segment that anything can be won from.
  absl::Status EvictOldest(BlockIo& io)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(maintenance_);
  // Whether so much of it may be moved elsewhere, as far as can be told.
  bool MayMove(const Segment& segment, uint64_t bytes) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What a cleaning wins most from; null when nothing is worth it.
  SegmentPtr FindEmptiest() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Room a move out of this segment needs for what is held.
  uint64_t HeldBytes(const Segment& segment) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<Written> WriteRecord(
      RecordHeader header, absl::Span<const std::byte> padded_payload,
      bool sync, WhenFull when_full, BlockIo& io);
  // Gives a failed record's bytes back to the file system.
  static void PunchOut(const Claim& claim, uint64_t record_bytes);
  // Points the index to `record` if it still points to `expected` (nullopt:
  // whatever it points to).
  absl::StatusOr<bool> Install(const RecordHeader& record, bool sync,
                               const std::optional<RecordHeader>& expected);
  // Drops the index entry if it is still `expected` (nullopt: whatever it is).
  absl::StatusOr<bool> Uninstall(ShardId shard, const ChunkKey& key,
                                 const std::optional<RecordHeader>& expected);
  void CountLive(const RecordHeader& record, bool live)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Moves what `keep` says out of the segment, drops the rest, deletes it.
  absl::Status Empty(const SegmentPtr& segment,
                     absl::FunctionRef<bool(ShardId, const ChunkKey&)> keep,
                     BlockIo& io);
  absl::Status MoveRecord(const RecordHeader& record, Segment& from,
                          BlockIo& io);
  void KeepTombstones(const SegmentPtr& segment, BlockIo& io);
  // Where an object lies; the file stays open with the pointer. NOT_FOUND.
  struct Place {
    RecordHeader record;
    SegmentPtr segment;
  };
  absl::StatusOr<Place> Locate(ShardId shard, const ChunkKey& key) const;

  const Options options_;
  uint64_t store_id_ = 0;
  bool direct_ = true;
  int lock_fd_ = -1;
  std::unique_ptr<DiskIndex> index_;
  // Serialises eviction and cleaning; taken before mutex_.
  absl::Mutex maintenance_;
  // Index changes and what they count in segments go together.
  mutable absl::Mutex mutex_;
  std::map<uint32_t, SegmentPtr> segments_ ABSL_GUARDED_BY(mutex_);
  SegmentPtr active_ ABSL_GUARDED_BY(mutex_);
  uint32_t next_segment_ ABSL_GUARDED_BY(mutex_) = 1;
  uint64_t next_sequence_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t total_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  Counters counters_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_SEGMENT_LOG_H_
