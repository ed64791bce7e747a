// Random histories against a partition, with a disk that answers late, in any
// order, and sometimes with errors: every request ends once, no read gives the
// wrong bytes, the counters conserve.
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "storage/partition.h"

namespace kdn::storage {
namespace {

constexpr size_t kObject = Arena::kPageBytes;

ChunkKey Key(uint8_t i) {
  std::array<uint8_t, 32> bytes{};
  bytes[0] = i;
  return ChunkKey(bytes);
}

class Driver {
 public:
  Driver(uint32_t seed, bool has_disk)
      : random_(seed), arena_(*Arena::Create(6 * kObject)) {
    Partition::Options options;
    options.has_disk = has_disk;
    options.disk_writes_max = 2;
    options.disk_reads_max = 2;
    partition_ = std::make_unique<Partition>(options, arena_);
    has_disk_ = has_disk;
  }

  void Step() {
    now_ += absl::Milliseconds(10);
    const auto key = static_cast<uint8_t>(random_() % 12);
    switch (random_() % 10) {
      case 0:
      case 1:
        Open(partition_->Reserve(NextId(), kObject, Deadline(), now_));
        break;
      case 2:
        CommitOne(key);
        break;
      case 3:
      case 4:
      case 5:
        Open(partition_->Read(NextId(), Key(key), "t", Deadline(), now_));
        break;
      case 6:
        partition_->Pin(Key(key), "t", SessionId(random_() % 3), Deadline())
            .IgnoreError();
        if (random_() % 3 == 0) partition_->ReleaseSession(SessionId(1));
        break;
      case 7: {
        Partition::Removal removal =
            partition_->Remove(Key(key), "t", SessionId(0));
        Open(std::move(removal.actions));
        break;
      }
      case 8:
        Open(partition_->OnTick(now_));
        if (random_() % 2 == 0) readers_.clear();
        break;
      default:
        AnswerDisk();
    }
    partition_->CheckInvariants();
  }

  void Finish() {
    readers_.clear();
    granted_.clear();
    while (!writes_.empty() || !reads_.empty()) AnswerDisk();
    now_ += absl::Hours(1);
    Open(partition_->OnTick(now_));
    while (!writes_.empty() || !reads_.empty()) AnswerDisk();
    partition_->CheckInvariants();
    EXPECT_TRUE(open_.empty()) << open_.size() << " requests never ended";
  }

 private:
  RequestId NextId() {
    const RequestId id(++last_id_);
    open_.insert(id.value());
    return id;
  }
  absl::Time Deadline() {
    return now_ + absl::Milliseconds(random_() % 500 + 1);
  }
  void CommitOne(uint8_t key) {
    if (granted_.empty()) return;
    auto block = std::move(granted_.back());
    granted_.pop_back();
    ObjectInfo info;
    info.key = Key(key);
    info.ns = "t";
    info.version = ObjectVersion(++last_version_);
    info.bytes = kObject;
    // The bytes are their version, so a wrong object shows.
    std::memcpy(block->bytes().data(), &last_version_, sizeof(last_version_));
    const auto durability = static_cast<Durability>(random_() % 3);
    Open(partition_->Commit(NextId(), info, std::move(block), durability,
                            absl::InfinitePast(), Deadline(), now_));
  }
  void Open(Actions actions) {
    for (Action& action : actions) {
      std::visit([this](auto& it) { On(it); }, action);
    }
  }
  void Ended(RequestId id) {
    EXPECT_EQ(open_.erase(id.value()), 1u) << "ended twice";
  }
  void On(action::Granted& it) {
    Ended(it.id);
    granted_.push_back(std::move(it.block));
  }
  void On(action::Committed& it) { Ended(it.id); }
  void On(action::Missed& it) { Ended(it.id); }
  void On(action::Refused& it) { Ended(it.id); }
  void On(action::Found& it) {
    Ended(it.id);
    uint64_t version = 0;
    std::memcpy(&version, it.object->bytes().data(), sizeof(version));
    EXPECT_EQ(ObjectVersion(version), it.info.version);
    if (random_() % 2 == 0) readers_.push_back(it.object);
  }
  void On(action::WriteToDisk& it) { writes_.push_back(it); }
  void On(action::ReadFromDisk& it) { reads_.push_back(it); }
  void On(action::RemoveFromDisk& it) { disk_.erase(it.key); }

  void AnswerDisk() {
    if (!writes_.empty() && (reads_.empty() || random_() % 2 == 0)) {
      // One key's writes are answered in order.
      const action::WriteToDisk write = writes_.front();
      writes_.erase(writes_.begin());
      absl::Status status;
      if (random_() % 8 == 0) status = absl::ResourceExhaustedError("full");
      if (status.ok()) disk_[write.info.key] = write.info.version;
      Open(partition_->OnDiskWritten(write.info.key, status, now_));
    } else if (!reads_.empty()) {
      const action::ReadFromDisk read = reads_.front();
      reads_.erase(reads_.begin());
      const auto version = read.info.version.value();
      std::memcpy(read.block->bytes().data(), &version, sizeof(version));
      absl::Status status;
      if (random_() % 8 == 0) status = absl::DataLossError("damaged");
      Open(partition_->OnDiskRead(read.info.key, status, now_));
    }
  }

  std::mt19937 random_;
  bool has_disk_ = false;
  std::shared_ptr<Arena> arena_;
  std::unique_ptr<Partition> partition_;
  absl::Time now_ = absl::FromUnixSeconds(1000);
  uint64_t last_id_ = 0;
  uint64_t last_version_ = 0;
  std::set<uint64_t> open_;
  std::vector<std::shared_ptr<ArenaBlock>> granted_;
  std::vector<ObjectRef> readers_;
  std::vector<action::WriteToDisk> writes_;
  std::vector<action::ReadFromDisk> reads_;
  std::map<ChunkKey, ObjectVersion> disk_;
};

TEST(PartitionModelTest, HoldsItsPromisesUnderRandomHistories) {
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    Driver driver(seed, /*has_disk=*/seed % 4 != 0);
    for (int step = 0; step < 400; ++step) driver.Step();
    driver.Finish();
    if (testing::Test::HasFailure()) break;
  }
}

}  // namespace
}  // namespace kdn::storage
