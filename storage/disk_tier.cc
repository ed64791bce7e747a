#include "storage/disk_tier.h"

#include <atomic>
#include <deque>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "kv/check.h"
#include "kv/log.h"
#include "storage/block_io.h"
#include "storage/segment_log.h"

namespace kdn::storage {
namespace {

// The number of threads for reads, and also the number of threads for writes.
// Each thread keeps the blocks of one object in flight; together they keep a
// disk busy while some compute checksums or write the index.
constexpr int kThreads = 8;

// One disk thread with its queue and its I/O. All reads of one key go to one
// lane, and all writes and removals of the key go to one other lane. So the
// reads happen in the order of their calls, and so do the writes and removals.
// One more lane confirms holds.
class Lane {
 public:
  using Task = absl::AnyInvocable<void(BlockIo&)>;

  explicit Lane(std::unique_ptr<BlockIo> io)
      : io_(std::move(io)), thread_([this] { Run(); }) {}
  ~Lane() { Stop(); }
  // Ends the thread after the queued tasks. A task that is posted later does
  // not run.
  void Stop() {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    if (thread_.joinable()) thread_.join();
  }
  void Post(Task task) {
    absl::MutexLock lock(&mutex_);
    queue_.push_back(std::move(task));
  }

 private:
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !queue_.empty();
  }
  void Run() {
    for (;;) {
      Task task;
      {
        absl::MutexLock lock(&mutex_);
        mutex_.Await(absl::Condition(this, &Lane::HasWork));
        if (queue_.empty()) return;
        task = std::move(queue_.front());
        queue_.pop_front();
      }
      task(*io_);
    }
  }

  const std::unique_ptr<BlockIo> io_;
  absl::Mutex mutex_;
  std::deque<Task> queue_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses the other members from its start
};

// The wall clock minus the monotonic clock.
absl::Duration WallOffset(const Clock& clock) {
  return clock.WallNow() - clock.Now();
}

void LogDiskError(const char* site, const absl::Status& status) {
  LogError(site, status.ToString());
}

absl::Status InChunk(const ChunkKey& key, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat("chunk ", ShortHex(key), ": ",
                                                  status.message()));
}

// The thread that cleans segments, one after another, each time it is woken.
class Cleaner {
 public:
  Cleaner(SegmentLog* log, std::unique_ptr<BlockIo> io)
      : log_(log), io_(std::move(io)), thread_([this] { Run(); }) {}
  ~Cleaner() {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    thread_.join();
  }
  // A segment may have become worth a cleaning.
  void Wake() {
    absl::MutexLock lock(&mutex_);
    woken_ = true;
  }

 private:
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || woken_;
  }
  // False: the thread has to end.
  bool Await() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &Cleaner::HasWork));
    woken_ = false;
    return !stopping_;
  }
  void Run() {
    while (Await()) {
      const absl::StatusOr<bool> cleaned = log_->CleanOne(*io_);
      if (!cleaned.ok()) LogDiskError("disk.clean", cleaned.status());
      // Another segment may be worth a cleaning too.
      if (cleaned.ok() && *cleaned) Wake();
    }
  }

  SegmentLog* const log_;
  const std::unique_ptr<BlockIo> io_;
  absl::Mutex mutex_;
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses the other members from its start
};

using EvictionCallback = std::function<void(const RecordHeader&)>;

class DiskTierImpl final : public DiskTier {
 public:
  // `on_evicted` is the function that the log calls.
  DiskTierImpl(Options options, std::unique_ptr<SegmentLog> log,
               EvictionCallback& on_evicted)
      : options_(std::move(options)), log_(std::move(log)) {
    on_evicted = [this](const RecordHeader& record) { OnEvicted(record); };
    for (int i = 0; i < kThreads; ++i) {
      readers_.push_back(std::make_unique<Lane>(MakeIo()));
      writers_.push_back(std::make_unique<Lane>(MakeIo()));
    }
    holds_ = std::make_unique<Lane>(MakeIo());
    cleaner_ = std::make_unique<Cleaner>(log_.get(), MakeIo());
    cleaner_->Wake();
  }
  ~DiskTierImpl() override {
    // The lanes and the cleaner post to lanes, so all lanes stop before any of
    // them is destroyed.
    for (auto* lanes : {&readers_, &writers_}) {
      for (const std::unique_ptr<Lane>& lane : *lanes) lane->Stop();
    }
    holds_->Stop();
    cleaner_.reset();
  }

  void Write(const ObjectInfo& info, ObjectRef object, bool sync,
             Done done) override {
    Admit(writers_, "disk.write", info.key, std::move(done),
          [this, info, object = std::move(object), sync](BlockIo& io) {
            absl::Status status =
                log_->Append(HeaderOf(info, WallOffset(*options_.clock)),
                             object->padded(), sync, io);
            if (status.ok()) {
              ++writes_;
              bytes_written_ += info.bytes;
            }
            cleaner_->Wake();
            return status;
          });
  }

  void Read(const ObjectInfo& info, std::shared_ptr<ArenaBlock> block,
            Done done) override {
    KDN_CHECK(block->size() == info.bytes, "a read fills its block");
    Admit(readers_, "disk.read", info.key, std::move(done),
          [this, info, block = std::move(block)](BlockIo& io) {
            absl::Status status = log_->Read(info, block->padded(), io);
            if (status.ok()) {
              ++reads_;
              bytes_read_ += info.bytes;
            }
            return status;
          });
  }

  void Remove(ShardId shard, const ChunkKey& key, Done done) override {
    // Never refused: a removal takes no memory, and without it the object would
    // be back at the next start.
    Post(LaneOf(writers_, key), "disk.remove", key, std::move(done),
         [this, shard, key](BlockIo& io) {
           absl::Status status = log_->Remove(shard, key, io);
           cleaner_->Wake();
           return status;
         });
  }

  void Touch(ShardId shard, const ChunkKey& key) override {
    // Touches are hints: under load they are dropped.
    if (touches_queued_.fetch_add(1) >= options_.requests_max) {
      --touches_queued_;
      return;
    }
    LaneOf(readers_, key).Post([this, shard, key](BlockIo&) {
      log_->Touch(shard, key);
      --touches_queued_;
    });
  }

  void HeldChanged(ShardId shard, const ChunkKey& key) override {
    LaneOf(writers_, key).Post([this, shard, key](BlockIo&) {
      log_->HeldChanged(shard, key).IgnoreError();
    });
  }

  void ConfirmHeld(ShardId shard, const ChunkKey& key, Done done) override {
    // The engine that waits for the answer does not wait for writes. The answer
    // may have to wait for a change of the key's index entry, and reads must
    // not wait behind it.
    Post(
        *holds_, "disk.hold", key, std::move(done),
        [this, shard, key](BlockIo&) { return log_->HeldChanged(shard, key); });
  }

  void Amend(const ObjectInfo& info, bool sync, Done done) override {
    Post(LaneOf(writers_, info.key), "disk.amend", info.key, std::move(done),
         [this, info, sync](BlockIo&) {
           return log_->Amend(HeaderOf(info, WallOffset(*options_.clock)),
                              sync);
         });
  }

  absl::Status ForEach(
      absl::FunctionRef<void(const ObjectInfo&)> visit) override {
    const absl::Duration wall_offset = WallOffset(*options_.clock);
    return log_->ForEach([&](const RecordHeader& record) {
      visit(InfoOf(record, wall_offset));
    });
  }

  absl::Status Flush() override {
    absl::BlockingCounter lanes(2 * kThreads + 1);
    const auto count = [&lanes](BlockIo&) { lanes.DecrementCount(); };
    for (const auto* all : {&readers_, &writers_}) {
      for (const std::unique_ptr<Lane>& lane : *all) lane->Post(count);
    }
    holds_->Post(count);
    lanes.Wait();
    absl::Status status = log_->Sync();
    if (!status.ok()) LogDiskError("disk.flush", status);
    return status;
  }

  MetricValues counters() const override {
    const SegmentLog::Counters log = log_->counters();
    MetricValues c;
    c["disk_live_bytes"] = log.live_bytes;
    c["disk_segment_bytes"] = log.segment_bytes;
    c["disk_segments"] = log.segments;
    c["disk_objects"] = log.objects;
    c["disk_writes"] = writes_;
    c["disk_reads"] = reads_;
    c["disk_bytes_written"] = bytes_written_;
    c["disk_bytes_read"] = bytes_read_;
    c["disk_evictions"] = log.evictions;
    c["disk_damaged"] = log.damaged;
    c["disk_cleaned_segments"] = log.cleaned;
    c["disk_rebuilt_objects"] = log.rebuilt;
    c["disk_io_uring"] = uring_ ? 1 : 0;
    c["disk_direct"] = log_->direct() ? 1 : 0;
    return c;
  }

 private:
  using Lanes = std::vector<std::unique_ptr<Lane>>;

  std::unique_ptr<BlockIo> MakeIo() {
    std::unique_ptr<BlockIo> io;
    if (options_.use_io_uring) {
      io = MakeUringIo(options_.queue_depth, options_.block_bytes);
    }
    uring_ = io != nullptr;
    if (io == nullptr) io = MakePosixIo(options_.block_bytes);
    return io;
  }

  static Lane& LaneOf(Lanes& lanes, const ChunkKey& key) {
    return *lanes[OwnBits(key) % lanes.size()];
  }

  // Reports the eviction in order with the answers to writes of the key, and
  // only if no later write has put the object back.
  void OnEvicted(const RecordHeader& record) {
    if (!options_.on_evicted) return;
    LaneOf(writers_, record.key).Post([this, record](BlockIo&) {
      if (log_->Holds(record)) return;
      options_.on_evicted(InfoOf(record, WallOffset(*options_.clock)));
    });
  }

  // Queues `work` for the key's lane, or a refusal when too many requests
  // are queued. The refusal waits its turn too, so that the answers for one key
  // come in the order of the calls.
  template <typename Work>
  void Admit(Lanes& lanes, const char* site, const ChunkKey& key, Done done,
             Work work) {
    if (queued_.fetch_add(1) >= options_.requests_max) {
      --queued_;
      Post(LaneOf(lanes, key), site, key, std::move(done),
           [max = options_.requests_max](BlockIo&) {
             return absl::ResourceExhaustedError(absl::StrCat(
                 "all ", max,
                 " places in the queue of the disk are taken: the disk is too "
                 "slow for this load"));
           });
      return;
    }
    Post(LaneOf(lanes, key), site, key, std::move(done),
         [this, work = std::move(work)](BlockIo& io) {
           absl::Status status = work(io);
           --queued_;
           return status;
         });
  }

  template <typename Work>
  static void Post(Lane& lane, const char* site, const ChunkKey& key, Done done,
                   Work work) {
    lane.Post([site, key, work = std::move(work),
               done = std::move(done)](BlockIo& io) mutable {
      absl::Status status = work(io);
      if (!status.ok() && !absl::IsNotFound(status)) {
        LogDiskError(site, InChunk(key, status));
      }
      done(std::move(status));
    });
  }

  const Options options_;
  const std::unique_ptr<SegmentLog> log_;
  bool uring_ = false;
  std::atomic<int> queued_{0};
  std::atomic<int> touches_queued_{0};
  std::atomic<uint64_t> writes_{0};
  std::atomic<uint64_t> reads_{0};
  std::atomic<uint64_t> bytes_written_{0};
  std::atomic<uint64_t> bytes_read_{0};
  Lanes readers_;
  Lanes writers_;
  std::unique_ptr<Lane> holds_;  // for ConfirmHeld
  std::unique_ptr<Cleaner> cleaner_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<DiskTier>> DiskTier::Open(Options options) {
  KDN_CHECK(options.clock != nullptr, "expiries need a clock");
  SegmentLog::Options log_options;
  log_options.directory = options.directory;
  log_options.capacity_bytes = options.capacity_bytes;
  log_options.segment_bytes = options.segment_bytes;
  log_options.clean_below_live = options.clean_below_live;
  const auto on_evicted = std::make_shared<EvictionCallback>();
  log_options.on_evicted = [on_evicted](const RecordHeader& record) {
    (*on_evicted)(record);
  };
  log_options.holds = options.holds;
  log_options.held_at_start = [clock = options.clock](const RecordHeader& r) {
    return r.expiry_unix_us > absl::ToUnixMicros(clock->WallNow());
  };
  absl::StatusOr<std::unique_ptr<SegmentLog>> log =
      SegmentLog::Open(std::move(log_options));
  if (!log.ok()) return log.status();
  return std::make_unique<DiskTierImpl>(std::move(options), *std::move(log),
                                        *on_evicted);
}

}  // namespace kdn::storage
