#include <algorithm>
#include <deque>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "bench/bed.h"
#include "bench/parts.h"
#include "bench/raw_limits.h"
#include "kv/clock.h"
#include "storage/disk_tier.h"

namespace kdn::bench {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kObjectBytes = 2u << 20;
constexpr int kObjects = 512;
constexpr int kInFlight = 16;

// A disk tier, and the objects that are written to it and read back.
class DiskBed {
 public:
  static absl::StatusOr<std::unique_ptr<DiskBed>> Open(
      const std::string& directory) {
    auto bed = std::make_unique<DiskBed>();
    absl::StatusOr<cli::TempDirectory> made =
        cli::TempDirectory::Create(directory, "kdn-bench-disk-");
    if (!made.ok()) return made.status();
    bed->directory_ = *std::move(made);
    bed->options_.directory = bed->directory_.path();
    bed->options_.clock = &bed->clock_;
    bed->options_.capacity_bytes = 4ull << 30;
    absl::StatusOr<std::unique_ptr<storage::DiskTier>> tier =
        storage::DiskTier::Open(bed->options_);
    if (!tier.ok()) return tier.status();
    bed->tier_ = *std::move(tier);
    absl::StatusOr<std::shared_ptr<storage::Arena>> arena =
        storage::Arena::Create(2 * kInFlight * kObjectBytes);
    if (!arena.ok()) return arena.status();
    for (int i = 0; i < kInFlight; ++i) {
      bed->blocks_.push_back(*(*arena)->Allocate(kObjectBytes));
      std::fill(bed->blocks_.back()->bytes().begin(),
                bed->blocks_.back()->bytes().end(), static_cast<std::byte>(i));
    }
    return bed;
  }

  // Writes new objects in every round. Returns GB/s.
  absl::StatusOr<double> Write(int round) {
    infos_.assign(kObjects, storage::ObjectInfo());
    for (int i = 0; i < kObjects; ++i) {
      DigestBuilder name("bench");
      storage::ObjectInfo& info = infos_[static_cast<size_t>(i)];
      info.key = ChunkKey(name.Add(static_cast<uint64_t>(round))
                              .Add(static_cast<uint64_t>(i))
                              .Finish());
      info.shard = ShardId(static_cast<uint32_t>(i));
      info.ns = "bench";
      info.version = ObjectVersion(1);
      info.bytes = kObjectBytes;
    }
    return Sweep([this](const storage::ObjectInfo& info, size_t slot,
                        storage::DiskTier::Done done) {
      tier_->Write(info, blocks_[slot], false, std::move(done));
    });
  }

  // Reads the objects of the last round, in random order. Returns GB/s.
  absl::StatusOr<double> Read() {
    std::shuffle(infos_.begin(), infos_.end(), std::mt19937(2));
    return Sweep([this](const storage::ObjectInfo& info, size_t slot,
                        storage::DiskTier::Done done) {
      tier_->Read(info, blocks_[slot], std::move(done));
    });
  }

  MetricValues counters() const { return tier_->counters(); }
  const storage::DiskTier::Options& options() const { return options_; }

 private:
  // Keeps kInFlight operations going: the next one begins when any has ended.
  template <typename BeginOne>
  absl::StatusOr<double> Sweep(BeginOne begin_one) {
    absl::Mutex mutex;
    absl::Status failed;
    std::deque<size_t> idle(kInFlight);
    std::iota(idle.begin(), idle.end(), size_t{0});
    absl::BlockingCounter left(kObjects);
    const absl::Time begin = SteadyNow();
    for (const storage::ObjectInfo& info : infos_) {
      size_t slot = 0;
      {
        absl::MutexLock lock(&mutex);
        mutex.Await(absl::Condition(
            +[](std::deque<size_t>* list) { return !list->empty(); }, &idle));
        slot = idle.front();
        idle.pop_front();
      }
      begin_one(info, slot, [&, slot](absl::Status status) {
        {
          absl::MutexLock lock(&mutex);
          failed.Update(status);
          idle.push_back(slot);
        }
        left.DecrementCount();
      });
    }
    left.Wait();
    const absl::Duration took = SteadyNow() - begin;
    if (!failed.ok()) return failed;
    return GbpsOf(kObjects * kObjectBytes, took);
  }

  cli::TempDirectory directory_;  // outlives the tier
  RealClock clock_;
  storage::DiskTier::Options options_;
  std::unique_ptr<storage::DiskTier> tier_;
  std::vector<std::shared_ptr<storage::ArenaBlock>> blocks_;
  std::vector<storage::ObjectInfo> infos_;
};

}  // namespace

absl::Status MeasureDisk(const DeliveryOptions& options, Json& json) {
  absl::StatusOr<std::unique_ptr<DiskBed>> opened =
      DiskBed::Open(options.directory);
  if (!opened.ok()) return opened.status();
  DiskBed& bed = **opened;
  absl::StatusOr<RawDisk> raw =
      RawDisk::Open(options.directory, kObjects * kObjectBytes,
                    bed.options().block_bytes, bed.options().queue_depth);
  if (!raw.ok()) return raw.status();
  int round = 0;
  const absl::StatusOr<Rates> write =
      InTurns([&] { return bed.Write(round++); }, [&] { return raw->Write(); });
  if (!write.ok()) return write.status();
  const absl::StatusOr<Rates> read =
      InTurns([&] { return bed.Read(); }, [&] { return raw->Read(); });
  if (!read.ok()) return read.status();
  json["disk_io_uring"] = bed.counters()["disk_io_uring"] == 1;
  json["disk_direct"] = bed.counters()["disk_direct"] == 1;
  json["disk_write_gbps"] = write->ours;
  json["raw_write_gbps"] = write->raw;
  json["disk_write_over_raw"] = write->ratio;
  json["disk_read_gbps"] = read->ours;
  json["raw_read_gbps"] = read->raw;
  json["disk_read_over_raw"] = read->ratio;
  return absl::OkStatus();
}

}  // namespace kdn::bench
