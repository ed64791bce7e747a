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
#include "storage/block_io.h"
#include "storage/segment_log.h"

namespace kdn::storage {
namespace {

// Each keeps one object's blocks in flight; together they keep a disk busy
// while checksums are computed and the index is written.
constexpr int kThreads = 8;

// One disk thread: its queue and its I/O. Requests for one key always go to the
// same lane, so they happen in the order asked.
class Lane {
 public:
  using Task = absl::AnyInvocable<void(BlockIo&)>;

  explicit Lane(std::unique_ptr<BlockIo> io)
      : io_(std::move(io)), thread_([this] { Run(); }) {}
  ~Lane() {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    thread_.join();
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
  std::thread thread_;  // last: starts when everything else is there
};

// What has to be added to a time on the monotonic clock to have it on the wall
// clock.
absl::Duration WallOffset(const Clock& clock) {
  return clock.WallNow() - clock.Now();
}

class DiskTierImpl final : public DiskTier {
 public:
  DiskTierImpl(Options options, std::unique_ptr<SegmentLog> log)
      : options_(std::move(options)), log_(std::move(log)) {
    for (int i = 0; i < kThreads; ++i) {
      std::unique_ptr<BlockIo> io;
      if (options_.use_io_uring) {
        io = MakeUringIo(options_.queue_depth, options_.block_bytes);
      }
      uring_ = io != nullptr;
      if (io == nullptr) io = MakePosixIo(options_.block_bytes);
      lanes_.push_back(std::make_unique<Lane>(std::move(io)));
    }
  }

  void Write(const ObjectInfo& info, ObjectRef object, bool sync,
             Done done) override {
    Admit(info.key, std::move(done), Then::kClean,
          [this, info, object = std::move(object), sync](BlockIo& io) {
            absl::Status status =
                log_->Append(HeaderOf(info, WallOffset(*options_.clock)),
                             object->padded(), sync, io);
            if (status.ok()) {
              ++writes_;
              bytes_written_ += info.bytes;
            }
            return status;
          });
  }

  void Read(const ObjectInfo& info, std::shared_ptr<ArenaBlock> block,
            Done done) override {
    KDN_CHECK(block->size() == info.bytes, "a read fills its block");
    Admit(info.key, std::move(done), Then::kNothing,
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
    // Never refused: it holds no memory, and forgotten it would bring the
    // object back at the next start.
    Post(key, std::move(done), Then::kClean, [this, shard, key](BlockIo& io) {
      return log_->Remove(shard, key, io);
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
    absl::BlockingCounter lanes(kThreads);
    for (const std::unique_ptr<Lane>& lane : lanes_) {
      lane->Post([&lanes](BlockIo&) { lanes.DecrementCount(); });
    }
    lanes.Wait();
    return log_->Sync();
  }

  Counters counters() const override {
    const SegmentLog::Counters log = log_->counters();
    Counters c;
    c.live_bytes = log.live_bytes;
    c.segment_bytes = log.segment_bytes;
    c.segments = log.segments;
    c.objects = log.objects;
    c.writes = writes_;
    c.reads = reads_;
    c.bytes_written = bytes_written_;
    c.bytes_read = bytes_read_;
    c.evictions = log.evictions;
    c.damaged = log.damaged;
    c.cleaned_segments = log.cleaned;
    c.rebuilt_objects = log.rebuilt;
    c.io_uring = uring_;
    c.direct = log_->direct();
    return c;
  }

 private:
  // What follows a request, after its answer: nobody waits for a cleaning.
  enum class Then { kNothing, kClean };

  // Queues `work` for its key's lane, or refuses when too much is queued. The
  // refusal waits its turn too: answers for one key come in the order asked.
  template <typename Work>
  void Admit(const ChunkKey& key, Done done, Then then, Work work) {
    if (queued_.fetch_add(1) >= options_.requests_max) {
      --queued_;
      Post(key, std::move(done), Then::kNothing,
           [max = options_.requests_max](BlockIo&) {
             return absl::ResourceExhaustedError(
                 absl::StrCat(max, " disk requests are queued already"));
           });
      return;
    }
    Post(key, std::move(done), then,
         [this, work = std::move(work)](BlockIo& io) {
           absl::Status status = work(io);
           --queued_;
           return status;
         });
  }

  template <typename Work>
  void Post(const ChunkKey& key, Done done, Then then, Work work) {
    lanes_[key.bytes()[0] % kThreads]->Post(
        [this, then, work = std::move(work),
         done = std::move(done)](BlockIo& io) mutable {
          done(work(io));
          if (then == Then::kClean) Clean(io);
        });
  }

  // Cleaning rides on the requests that make it needed: at most one segment a
  // request, one thread at a time.
  void Clean(BlockIo& io) {
    if (cleaning_.exchange(true)) return;
    log_->CleanOne(io).status().IgnoreError();  // tried again by the next
    cleaning_ = false;
  }

  const Options options_;
  const std::unique_ptr<SegmentLog> log_;
  bool uring_ = false;
  std::atomic<int> queued_{0};
  std::atomic<bool> cleaning_{false};
  std::atomic<uint64_t> writes_{0};
  std::atomic<uint64_t> reads_{0};
  std::atomic<uint64_t> bytes_written_{0};
  std::atomic<uint64_t> bytes_read_{0};
  std::vector<std::unique_ptr<Lane>> lanes_;  // first to go: they use the rest
};

}  // namespace

absl::StatusOr<std::unique_ptr<DiskTier>> DiskTier::Open(Options options) {
  KDN_CHECK(options.clock != nullptr, "expiries need a clock");
  SegmentLog::Options log_options;
  log_options.directory = options.directory;
  log_options.capacity_bytes = options.capacity_bytes;
  log_options.segment_bytes = options.segment_bytes;
  log_options.clean_below_live = options.clean_below_live;
  if (options.on_evicted) {
    log_options.on_evicted = [on_evicted = options.on_evicted,
                              clock = options.clock](const RecordHeader& r) {
      on_evicted(InfoOf(r, WallOffset(*clock)));
    };
  }
  log_options.holds = options.holds;
  absl::StatusOr<std::unique_ptr<SegmentLog>> log =
      SegmentLog::Open(std::move(log_options));
  if (!log.ok()) return log.status();
  return std::make_unique<DiskTierImpl>(std::move(options), *std::move(log));
}

}  // namespace kdn::storage
