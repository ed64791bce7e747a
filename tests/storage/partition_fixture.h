#ifndef KDN_TESTS_STORAGE_PARTITION_FIXTURE_H_
#define KDN_TESTS_STORAGE_PARTITION_FIXTURE_H_

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <variant>

#include "storage/arena.h"
#include "storage/partition.h"

namespace kdn::storage {

inline const absl::Time kNow = absl::FromUnixSeconds(1000);
inline const absl::Time kLater = kNow + absl::Seconds(10);
inline constexpr size_t kObject = 2 * Arena::kPageBytes;

inline ChunkKey Key(uint8_t i) {
  std::array<uint8_t, 32> bytes{};
  bytes[0] = i;
  return ChunkKey(bytes);
}

// The action of this kind; null when there is none. Fails when there are two.
template <typename T>
const T* Only(const Actions& actions) {
  const T* found = nullptr;
  for (const Action& action : actions) {
    if (const T* it = std::get_if<T>(&action)) {
      EXPECT_EQ(found, nullptr) << "more than one";
      found = it;
    }
  }
  return found;
}

// A partition whose arena has room for a few objects of one size. Object `i` is
// filled with the byte `i`.
class PartitionTest : public testing::Test {
 protected:
  void Make(int objects, bool has_disk) {
    arena_ = *Arena::Create(objects * kObject);
    Partition::Options options;
    options.has_disk = has_disk;
    partition_ = std::make_unique<Partition>(options, arena_);
  }
  RequestId Next() { return RequestId(++id_); }
  ObjectInfo Info(uint8_t i, uint64_t version = 1) {
    ObjectInfo info;
    info.key = Key(i);
    info.shard = ShardId(i);
    info.ns = "t";
    info.version = ObjectVersion(version);
    info.bytes = kObject;
    return info;
  }
  std::shared_ptr<ArenaBlock> Block(uint8_t fill) {
    const Actions actions = partition_->Reserve(Next(), kObject, kLater, kNow);
    const auto* granted = Only<action::Granted>(actions);
    if (granted == nullptr) return nullptr;
    std::memset(granted->block->bytes().data(), fill, kObject);
    return granted->block;
  }
  Actions Put(uint8_t i, Durability durability = Durability::kReplicated,
              absl::Time expires = absl::InfinitePast()) {
    auto block = Block(i);
    EXPECT_NE(block, nullptr);
    Actions actions = partition_->Commit(Next(), Info(i), std::move(block),
                                         durability, expires, kLater, kNow);
    partition_->CheckInvariants();
    return actions;
  }
  // Reads the object and returns the loan at once.
  Actions Read(uint8_t i, const std::string& ns = "t") {
    Actions actions = partition_->Read(Next(), Key(i), ns, kLater, kNow);
    const auto* found = Only<action::Found>(actions);
    if (found != nullptr) partition_->OnReturned(found->loan, kNow);
    return actions;
  }
  bool Pin(uint8_t i, uint64_t session) {
    const Actions actions =
        partition_->Pin(Next(), Key(i), "t", SessionId(session), kLater);
    return Only<action::Pinned>(actions) != nullptr;
  }
  Actions Written(uint8_t i, const absl::Status& status = absl::OkStatus(),
                  absl::Time now = kNow) {
    return partition_->OnDiskWritten(Key(i), status, now);
  }
  Actions EvictedFromDisk(uint8_t i, uint64_t version = 1) {
    return partition_->OnEvictedFromDisk(Key(i), ObjectVersion(version), kNow);
  }
  // The disk's answer to ConfirmHold.
  Actions Confirmed(uint8_t i, const absl::Status& status = absl::OkStatus()) {
    return partition_->OnDiskHeld(Key(i), status, kNow);
  }
  // Puts the object and moves it out of memory. REQUIRES: room for one object.
  void PutOnDiskOnly(uint8_t i) {
    Put(i);
    Written(i);
    EXPECT_NE(Block(i), nullptr);
  }
  Actions ReadDone(uint8_t i, const absl::Status& status = absl::OkStatus()) {
    return partition_->OnDiskRead(Key(i), status, kNow);
  }
  void TearDown() override { partition_->CheckInvariants(); }

  std::shared_ptr<Arena> arena_;
  std::unique_ptr<Partition> partition_;
  uint64_t id_ = 0;
};

}  // namespace kdn::storage

#endif  // KDN_TESTS_STORAGE_PARTITION_FIXTURE_H_
