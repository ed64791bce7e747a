// Tests with a file system that is full before the capacity is reached: a small
// tmpfs, if this process may mount it.
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <cerrno>
#include <cstring>

#include "storage/disk_tier.h"
#include "tests/storage/disk_fixture.h"

namespace kdn::storage {
namespace {

constexpr size_t kObjectBytes = 200000;

class DiskFullTest : public testing::Test {
 protected:
  void SetUp() override {
    if (mount("kdn-full", directory_.path().c_str(), "tmpfs", 0, "size=16m") !=
        0) {
      GTEST_SKIP() << "no tmpfs for this user (" << strerror(errno)
                   << "); full tiers are tested by capacity alone";
    }
    mounted_ = true;
  }
  void TearDown() override {
    if (mounted_) {
      EXPECT_EQ(umount(directory_.path().c_str()), 0) << strerror(errno);
    }
  }
  std::unique_ptr<DiskTier> Open(
      std::function<bool(ShardId, const ChunkKey&)> holds) {
    DiskTier::Options options;
    options.directory = directory_.path() + "/disk";
    options.clock = TestClock();
    options.capacity_bytes = 1u << 30;
    options.segment_bytes = 1u << 20;
    options.holds = std::move(holds);
    auto tier = DiskTier::Open(std::move(options));
    EXPECT_TRUE(tier.ok()) << tier.status();
    return tier.ok() ? *std::move(tier) : nullptr;
  }
  TempDirectory directory_;
  bool mounted_ = false;
};

TEST_F(DiskFullTest, AFullFileSystemEvictsTheOldest) {
  auto tier = Open(nullptr);
  ASSERT_NE(tier, nullptr);
  SyncDisk disk(tier.get());
  for (int i = 0; i < 200; ++i) {
    const absl::Status status = disk.Write(MakeObject(i, 1, kObjectBytes));
    ASSERT_TRUE(status.ok()) << i << ": " << status;
  }
  EXPECT_GT(tier->counters()["disk_evictions"], 100u);
  EXPECT_GT(tier->counters()["disk_objects"], 40u)
      << "most of the room is used";
  const TestObject last = MakeObject(199, 1, kObjectBytes);
  const auto back = disk.Read(last.info);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(*back, last.bytes);
}

TEST_F(DiskFullTest, AFullFileSystemOfHeldObjectsRefusesAndLosesNothing) {
  int written = 0;
  {
    auto tier = Open([](ShardId, const ChunkKey&) { return true; });
    ASSERT_NE(tier, nullptr);
    SyncDisk disk(tier.get());
    absl::Status status;
    while (written < 200) {
      status = disk.Write(MakeObject(written, 1, kObjectBytes));
      if (!status.ok()) break;
      ++written;
    }
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
    EXPECT_GT(written, 40);
  }
  auto tier = Open(nullptr);  // all objects are there after a restart
  ASSERT_NE(tier, nullptr);
  SyncDisk disk(tier.get());
  for (int i = 0; i < written; ++i) {
    const TestObject object = MakeObject(i, 1, kObjectBytes);
    const auto back = disk.Read(object.info);
    ASSERT_TRUE(back.ok()) << i << ": " << back.status();
    EXPECT_EQ(*back, object.bytes);
  }
  // The objects are not held any more.
  EXPECT_TRUE(disk.Write(MakeObject(999, 1, kObjectBytes)).ok());
}

}  // namespace
}  // namespace kdn::storage
