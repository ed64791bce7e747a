// Random histories against a partition. The disk answers late, sometimes with
// errors, and in any order except for the requests of one key. It evicts on its
// own, and the partition hears of that late. Every request ends once; no read
// gives wrong bytes; a durable object is found until it is removed, damaged or
// evicted; a pinned object is lost to damage only; in the end, the disk has the
// TTL and the durability class that the partition has acknowledged; hits,
// misses and failures add up to the lookups.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "storage/arena.h"
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
    if (has_disk) RestoreTooLarge();
  }

  void Step() {
    now_ += absl::Milliseconds(10);
    const auto key = static_cast<uint8_t>(random_() % 12);
    switch (random_() % 12) {
      case 0:
      case 1:
        Open(partition_->Reserve(NextId(), (1 + random_() % 3) * kObject,
                                 Deadline(), now_));
        if (random_() % 4 == 0) {
          // Any request: only a reservation that waits may be withdrawn.
          Open(partition_->Withdraw(RequestId(1 + random_() % last_id_), now_));
          Open(partition_->Withdraw(RequestId(last_id_), now_));
        }
        break;
      case 2:
        CommitOne(key);
        break;
      case 3:
      case 4:
      case 5:
        reading_[last_id_ + 1] = Key(key);
        Open(partition_->Read(NextId(), Key(key), "t", Deadline(), now_));
        break;
      case 6:
        Open(partition_->Pin(NextId(), Key(key), "t", SessionId(random_() % 3),
                             Deadline()));
        if (random_() % 3 == 0) {
          Open(partition_->Unpin(NextId(), Key(key), "t", SessionId(2)));
        }
        if (random_() % 3 == 0) Open(partition_->ReleaseSession(SessionId(1)));
        break;
      case 7:
        removing_[last_id_ + 1] = Key(key);
        RemoveOne(Key(key));
        break;
      case 8:
        Open(partition_->OnTick(now_));
        CheckHolds();
        if (random_() % 2 == 0) ReturnAll();
        break;
      case 9:
        EvictFromDisk(Key(key));
        break;
      case 10:
        if (random_() % 4 != 0) break;
        durable_.erase(Key(key));
        damaged_.insert(Key(key));
        Open(partition_->Discard(Key(key), ObjectVersion(last_version_)));
        break;
      default:
        AnswerDisk();
    }
    partition_->CheckInvariants();
  }

  void Finish() {
    disk_fails_ = false;
    ReturnAll();
    granted_.clear();
    AnswerAll();
    now_ += absl::Hours(1);
    Open(partition_->OnTick(now_));
    ReturnAll();
    Open(partition_->Flush(now_));
    AnswerAll();
    EXPECT_FALSE(partition_->HasUnwritten());
    partition_->CheckInvariants();
    CheckHolds();
    CheckTerms();
    EXPECT_TRUE(held_.empty()) << "every lease and TTL has run out";
    EXPECT_TRUE(open_.empty()) << open_.size() << " requests never ended";
  }
  // Gives the partition's hash tables another size and order. The tables are
  // empty afterwards.
  void Shake() {
    for (int i = 0; i < 3000; ++i) {
      ObjectInfo info;
      info.key = EvictionKeyOf(i);
      info.ns = "shaken";
      info.version = ObjectVersion(1);
      partition_->Restore(info, now_);
      EXPECT_TRUE(
          partition_->OnEvictedFromDisk(info.key, info.version, now_).empty());
    }
  }
  // All actions of the partition, in order.
  const std::vector<std::string>& actions() const { return actions_; }

 private:
  // An object of an earlier run, when there was more memory.
  void RestoreTooLarge() {
    ObjectInfo info;
    info.key = Key(11);
    info.ns.assign(1, 't');
    info.version = ObjectVersion(++last_version_);
    info.bytes = 7 * kObject;
    EXPECT_TRUE(partition_->Restore(info, now_).empty());
    disk_[info.key] = info.version;
    stored_[info.key] = info;
  }
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
    info.ns.assign(1, 't');
    const ObjectInfo* known = partition_->Find(info.key);
    info.bytes = block->size();
    info.version =
        known != nullptr && known->bytes == info.bytes && random_() % 2 == 0
            ? known->version
            : ObjectVersion(++last_version_);
    Fill(*block, info.key, info.version);
    const auto durability = static_cast<Durability>(random_() % 3);
    if (durability == Durability::kDurable) {
      wants_durable_.insert(last_id_ + 1);
    }
    const bool with_ttl = random_() % 4 == 0;
    Open(partition_->Commit(NextId(), info, std::move(block), durability,
                            with_ttl ? Deadline() : absl::InfinitePast(),
                            Deadline(), now_));
  }
  void RemoveOne(const ChunkKey& key) {
    const uint64_t removed = partition_->counters()["removed"];
    Actions actions = partition_->Remove(NextId(), key, "t", SessionId(0));
    if (partition_->counters()["removed"] > removed) durable_.erase(key);
    Open(std::move(actions));
  }
  void Open(Actions actions) {
    for (Action& action : actions) {
      std::visit(
          [&](auto& it) {
            actions_.push_back(absl::StrCat(action.index(), " ", NameOf(it)));
            On(it);
          },
          action);
    }
  }
  template <typename A>
  static std::string NameOf(const A& it) {
    if constexpr (requires { it.info; }) {
      return absl::StrCat(ShortHex(it.info.key), " ", it.info.version.value());
    } else if constexpr (requires { it.key; }) {
      return ShortHex(it.key);
    } else {
      return absl::StrCat(it.id.value());
    }
  }
  void ReturnAll() {
    std::vector<Loan> loans = std::exchange(returned_, {});
    for (const auto& [object, loan] : readers_) loans.push_back(loan);
    readers_.clear();
    for (const Loan& loan : loans) Open(partition_->OnReturned(loan, now_));
  }
  // REQUIRES: leases have been expired at this time.
  void CheckHolds() {
    for (uint8_t i = 0; i < 12; ++i) {
      EXPECT_EQ(partition_->Held(Key(i), now_), held_.contains(Key(i)));
    }
  }
  // REQUIRES: the disk has answered everything, and has failed at nothing
  // lately.
  void CheckTerms() {
    for (const auto& [key, stored] : stored_) {
      const ObjectInfo* known = partition_->Find(key);
      if (!disk_.contains(key) || known == nullptr) continue;
      if (known->version != stored.version) continue;
      EXPECT_EQ(stored.expires, known->expires);
      EXPECT_EQ(stored.durability, known->durability);
    }
  }
  static ChunkKey EvictionKeyOf(int i) {
    return ChunkKey(DigestBuilder("shake").Add(uint64_t(i)).Finish());
  }
  void Ended(RequestId id) {
    EXPECT_EQ(open_.erase(id.value()), 1u) << "ended twice";
  }
  void On(action::Granted& it) {
    Ended(it.id);
    granted_.push_back(std::move(it.block));
  }
  void On(action::Committed& it) {
    Ended(it.id);
    // The disk may have evicted the object, and the partition may not know that
    // yet.
    const bool evicted = it.existed && !disk_.contains(it.info.key);
    if (wants_durable_.contains(it.id.value()) && !evicted) {
      durable_[it.info.key] = it.info.version;
    }
  }
  void On(action::Missed& it) {
    Ended(it.id);
    EXPECT_FALSE(durable_.contains(reading_[it.id.value()])) << "lost";
  }
  void On(action::Refused& it) { Ended(it.id); }
  void On(action::Found& it) {
    Ended(it.id);
    const ChunkKey& key = reading_[it.id.value()];
    EXPECT_EQ(it.info.key, key);
    EXPECT_TRUE(Holds(*it.object, key, it.info.version)) << "wrong object";
    const auto durable = durable_.find(key);
    if (durable != durable_.end()) {
      EXPECT_EQ(durable->second, it.info.version);
    }
    readers_.emplace_back(it.object, it.loan);
    if (random_() % 2 == 0) return;
    readers_.pop_back();
    it.object.reset();
    returned_.push_back(it.loan);
  }
  void On(action::Pinned& it) { Ended(it.id); }
  void On(action::HoldChanged& it) {
    if (it.held) {
      EXPECT_TRUE(held_.insert(it.key).second) << "told twice";
    } else {
      EXPECT_EQ(held_.erase(it.key), 1u) << "told twice";
    }
  }
  void On(action::WriteFailed& it) {
    EXPECT_TRUE(absl::IsResourceExhausted(it.why));
  }
  void On(action::HeldLost& it) {
    EXPECT_TRUE(damaged_.contains(it.key)) << "a held object was evicted";
  }
  void On(action::ConfirmHold& it) { confirms_.push_back(it.key); }
  void On(action::WriteToDisk& it) { disk_work_.push_back(it); }
  void On(action::ReadFromDisk& it) { disk_work_.push_back(it); }
  void On(action::RemoveFromDisk& it) { disk_work_.push_back(it); }
  void On(action::AmendOnDisk& it) { disk_work_.push_back(it); }
  void On(action::Removed& it) {
    Ended(it.id);
    // The disk may not have the object. The partition may have an object of
    // this key that was stored later and is not written yet.
    const ChunkKey& key = removing_[it.id.value()];
    EXPECT_FALSE(disk_.contains(key)) << "comes back at the next start";
  }

  // The bytes of an object are its key and version, so that wrong bytes show.
  static void Fill(ArenaBlock& block, const ChunkKey& key,
                   ObjectVersion version) {
    block.bytes()[0] = static_cast<std::byte>(key.bytes()[0]);
    const uint64_t value = version.value();
    std::memcpy(block.bytes().data() + 1, &value, sizeof(value));
  }
  static bool Holds(const ArenaBlock& block, const ChunkKey& key,
                    ObjectVersion version) {
    const uint64_t value = version.value();
    return block.bytes()[0] == static_cast<std::byte>(key.bytes()[0]) &&
           std::memcmp(block.bytes().data() + 1, &value, sizeof(value)) == 0;
  }

  // The disk has evicted the object. The partition hears of the eviction when
  // the queue comes to this notice.
  struct Notice {
    ChunkKey key;
    ObjectVersion version;
  };
  using DiskWork =
      std::variant<action::WriteToDisk, action::ReadFromDisk,
                   action::RemoveFromDisk, action::AmendOnDisk, Notice>;
  static ChunkKey KeyOf(const DiskWork& work) {
    if (const auto* write = std::get_if<action::WriteToDisk>(&work)) {
      return write->info.key;
    }
    if (const auto* read = std::get_if<action::ReadFromDisk>(&work)) {
      return read->info.key;
    }
    if (const auto* amend = std::get_if<action::AmendOnDisk>(&work)) {
      return amend->info.key;
    }
    if (const auto* notice = std::get_if<Notice>(&work)) return notice->key;
    return std::get<action::RemoveFromDisk>(work).key;
  }
  // Answers the first request of any key. Confirmations are a queue of their
  // own.
  void AnswerDisk() {
    if (!confirms_.empty() && (disk_work_.empty() || random_() % 4 == 0)) {
      return AnswerConfirm();
    }
    if (disk_work_.empty()) return;
    const ChunkKey key = KeyOf(disk_work_[random_() % disk_work_.size()]);
    const auto first =
        std::find_if(disk_work_.begin(), disk_work_.end(),
                     [&](const DiskWork& work) { return KeyOf(work) == key; });
    DiskWork work = std::move(*first);
    disk_work_.erase(first);
    std::visit([this](auto& it) { Do(it); }, work);
  }
  void AnswerConfirm() {
    const ChunkKey key = confirms_.front();
    confirms_.erase(confirms_.begin());
    absl::Status status;
    if (!disk_.contains(key)) status = absl::NotFoundError("none");
    if (disk_fails_ && random_() % 8 == 0) {
      status = absl::UnavailableError("broken");
    }
    Open(partition_->OnDiskHeld(key, status, now_));
  }
  void AnswerAll() {
    while (!disk_work_.empty() || !confirms_.empty()) AnswerDisk();
  }
  void Do(Notice& notice) {
    if (disk_.contains(notice.key)) return;  // written again since
    Open(partition_->OnEvictedFromDisk(notice.key, notice.version, now_));
  }
  void Do(action::WriteToDisk& write) {
    const ChunkKey key = write.info.key;
    absl::Status status;
    if (disk_fails_ && random_() % 8 == 0) {
      status = absl::ResourceExhaustedError("full");
    }
    EXPECT_TRUE(Holds(*write.object, key, write.info.version));
    // The sync of a record that has replaced another one may fail.
    const bool replaced = disk_.contains(key) &&
                          disk_[key] == write.info.version &&
                          random_() % 2 == 0;
    if (status.ok() || replaced) {
      disk_[key] = write.info.version;
      stored_[key] = write.info;
    }
    write.object.reset();
    Open(partition_->OnDiskWritten(key, status, now_));
  }
  void Do(action::AmendOnDisk& amend) {
    const ChunkKey& key = amend.info.key;
    const auto stored = disk_.find(key);
    absl::Status status;
    if (stored == disk_.end() || stored->second != amend.info.version) {
      status = absl::NotFoundError("not on this disk");
    } else if (disk_fails_ && random_() % 4 == 0) {
      status = absl::UnavailableError("broken");
    }
    // An amendment whose sync fails is in the index.
    if (status.ok() || (absl::IsUnavailable(status) && random_() % 2 == 0)) {
      stored_[key] = amend.info;
    }
    Open(partition_->OnDiskAmended(key, status, now_));
  }
  void Do(action::ReadFromDisk& read) {
    const ChunkKey key = read.info.key;
    const auto held = disk_.find(key);
    absl::Status status;
    if (held == disk_.end() || held->second != read.info.version) {
      status = absl::NotFoundError("not on this disk");
    } else if (random_() % 8 == 0) {
      status = absl::DataLossError("damaged");
      disk_.erase(held);
      durable_.erase(key);
      damaged_.insert(key);
    } else {
      Fill(*read.block, key, held->second);
    }
    read.block.reset();
    Open(partition_->OnDiskRead(key, status, now_));
  }
  void Do(action::RemoveFromDisk& removal) {
    absl::Status status;
    if (random_() % 8 == 0) status = absl::UnavailableError("broken");
    if (status.ok()) disk_.erase(removal.key);
    Open(partition_->OnDiskRemoved(removal.key, status));
  }

  // Makes room as the disk tier does. A held object is never evicted.
  void EvictFromDisk(const ChunkKey& key) {
    const auto held = disk_.find(key);
    if (held == disk_.end() || held_.contains(key)) return;
    const ObjectVersion version = held->second;
    disk_.erase(held);
    durable_.erase(key);
    disk_work_.push_back(Notice{key, version});
  }

  std::mt19937 random_;
  std::shared_ptr<Arena> arena_;
  std::unique_ptr<Partition> partition_;
  absl::Time now_ = absl::FromUnixSeconds(1000);
  uint64_t last_id_ = 0;
  uint64_t last_version_ = 0;
  std::set<uint64_t> open_;
  std::vector<std::shared_ptr<ArenaBlock>> granted_;
  std::vector<std::pair<ObjectRef, Loan>> readers_;
  std::vector<Loan> returned_;  // the reader has let go, the loan is open
  std::set<ChunkKey> held_;     // by the HoldChanged actions
  std::vector<std::string> actions_;
  bool disk_fails_ = true;
  std::vector<DiskWork> disk_work_;
  std::vector<ChunkKey> confirms_;
  std::map<ChunkKey, ObjectVersion> disk_;
  // With the TTLs and durability classes; objects that have gone are still
  // here.
  std::map<ChunkKey, ObjectInfo> stored_;
  std::map<uint64_t, ChunkKey> reading_;
  std::map<uint64_t, ChunkKey> removing_;
  std::set<uint64_t> wants_durable_;
  std::set<ChunkKey> damaged_;  // at any time
  // The versions that reads must find.
  std::map<ChunkKey, ObjectVersion> durable_;
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

// The second partition's hash tables have another size and order than the
// first's.
TEST(PartitionModelTest, EqualEventsGiveEqualActions) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    Driver plain(seed, /*has_disk=*/true);
    Driver shaken(seed, /*has_disk=*/true);
    shaken.Shake();
    for (int step = 0; step < 400; ++step) {
      plain.Step();
      shaken.Step();
    }
    plain.Finish();
    shaken.Finish();
    EXPECT_GT(plain.actions().size(), 100u);
    ASSERT_EQ(plain.actions(), shaken.actions());
  }
}

}  // namespace
}  // namespace kdn::storage
