#ifndef KDN_TESTS_STORAGE_DISK_FIXTURE_H_
#define KDN_TESTS_STORAGE_DISK_FIXTURE_H_

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "kv/clock.h"
#include "storage/disk_tier.h"

namespace kdn::storage {

// A directory that the destructor deletes.
class TempDirectory {
 public:
  TempDirectory() : path_(testing::TempDir() + "/kdn-disk-XXXXXX") {
    EXPECT_NE(mkdtemp(path_.data()), nullptr);
  }
  ~TempDirectory() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline void FlipByte(const std::filesystem::path& file, std::streamoff at) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(at);
  char byte = 0;
  stream.get(byte);
  stream.seekp(at);
  stream.put(static_cast<char>(byte ^ 1));
  EXPECT_TRUE(stream.good()) << file;
}

// The clock of the tiers under test.
inline const Clock* TestClock() {
  static const RealClock clock;
  return &clock;
}

// Waits until another thread has made the condition true.
template <typename Condition>
void WaitUntil(Condition condition) {
  while (!condition()) std::this_thread::yield();
}

// Object `i` in version `version`. Its bytes depend on both numbers.
struct TestObject {
  ObjectInfo info;
  std::vector<std::byte> bytes;
};

inline TestObject MakeObject(int i, uint64_t version = 1,
                             size_t bytes = 10000) {
  TestObject object;
  DigestBuilder name("disk-test");
  object.info.key = ChunkKey(name.Add(static_cast<uint64_t>(i)).Finish());
  object.info.shard = ShardId(static_cast<uint32_t>(i % 7));
  object.info.ns.assign(1, 't');
  object.info.version = ObjectVersion(version);
  object.info.bytes = bytes;
  object.info.levels = 1;
  std::mt19937 random(static_cast<uint32_t>(i * 1000 + version));
  object.bytes.resize(bytes);
  for (std::byte& b : object.bytes) b = static_cast<std::byte>(random());
  return object;
}

// Calls a disk tier and waits for the answers.
class SyncDisk {
 public:
  explicit SyncDisk(DiskTier* tier)
      : tier_(tier), arena_(*Arena::Create(64u << 20)) {}

  absl::Status Write(const TestObject& object, bool sync = false) {
    auto block = *arena_->Allocate(object.info.bytes);
    std::memcpy(block->bytes().data(), object.bytes.data(),
                object.bytes.size());
    return Wait([&](DiskTier::Done done) {
      tier_->Write(object.info, block, sync, std::move(done));
    });
  }
  absl::StatusOr<std::vector<std::byte>> Read(const ObjectInfo& info) {
    auto block = *arena_->Allocate(info.bytes);
    absl::Status status = Wait([&](DiskTier::Done done) {
      tier_->Read(info, block, std::move(done));
    });
    if (!status.ok()) return status;
    return std::vector<std::byte>(block->bytes().begin(), block->bytes().end());
  }
  absl::Status ConfirmHeld(const ObjectInfo& info) {
    return Wait([&](DiskTier::Done done) {
      tier_->ConfirmHeld(info.shard, info.key, std::move(done));
    });
  }
  absl::Status Amend(const ObjectInfo& info, bool sync = false) {
    return Wait([&](DiskTier::Done done) {
      tier_->Amend(info, sync, std::move(done));
    });
  }
  absl::Status Remove(const ObjectInfo& info) {
    return Wait([&](DiskTier::Done done) {
      tier_->Remove(info.shard, info.key, std::move(done));
    });
  }

 private:
  template <typename Call>
  absl::Status Wait(Call call) {
    absl::Notification answered;
    absl::Status result;
    call([&](absl::Status status) {
      result = std::move(status);
      answered.Notify();
    });
    answered.WaitForNotification();
    return result;
  }

  DiskTier* const tier_;
  std::shared_ptr<Arena> arena_;
};

}  // namespace kdn::storage

#endif  // KDN_TESTS_STORAGE_DISK_FIXTURE_H_
