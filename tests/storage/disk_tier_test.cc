#include "storage/disk_tier.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <set>

#include "tests/storage/disk_fixture.h"

namespace kdn::storage {
namespace {

namespace fs = std::filesystem;

DiskTier::Options Options(const std::string& directory) {
  DiskTier::Options options;
  options.directory = directory;
  options.capacity_bytes = 64u << 20;
  options.segment_bytes = 256u << 10;
  return options;
}

std::unique_ptr<DiskTier> Open(DiskTier::Options options) {
  absl::StatusOr<std::unique_ptr<DiskTier>> tier =
      DiskTier::Open(std::move(options));
  EXPECT_TRUE(tier.ok()) << tier.status();
  return tier.ok() ? *std::move(tier) : nullptr;
}

std::vector<fs::path> SegmentsIn(const std::string& directory) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(directory)) {
    if (entry.path().filename().string().rfind("segment-", 0) == 0) {
      files.push_back(entry.path());
    }
  }
  return files;
}

void FlipByte(const fs::path& file, std::streamoff at) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(at);
  char byte = 0;
  stream.get(byte);
  stream.seekp(at);
  stream.put(static_cast<char>(byte ^ 1));
}

class DiskTierTest : public testing::TestWithParam<bool> {
 protected:
  DiskTier::Options OptionsHere() {
    DiskTier::Options options = Options(directory_.path());
    options.use_io_uring = GetParam();
    return options;
  }
  TempDirectory directory_;
};

TEST_P(DiskTierTest, GivesBackTheVeryBytesAlsoAfterARestart) {
  for (int run = 0; run < 2; ++run) {
    auto tier = Open(OptionsHere());
    ASSERT_NE(tier, nullptr);
    SyncDisk disk(tier.get());
    for (int i = 0; i < 60; ++i) {
      const TestObject object = MakeObject(i, 1, 1 + i * 997);
      if (run == 0) {
        ASSERT_TRUE(disk.Write(object, i % 2 == 0).ok());
      }
      const auto back = disk.Read(object.info);
      ASSERT_TRUE(back.ok()) << back.status();
      EXPECT_EQ(*back, object.bytes);
    }
    EXPECT_EQ(tier->counters().objects, 60u);
  }
}

TEST_P(DiskTierTest, SaysWhatItDoesNotHold) {
  auto tier = Open(OptionsHere());
  SyncDisk disk(tier.get());
  EXPECT_TRUE(absl::IsNotFound(disk.Read(MakeObject(1).info).status()));
  ASSERT_TRUE(disk.Write(MakeObject(1, 1)).ok());
  EXPECT_TRUE(absl::IsNotFound(disk.Read(MakeObject(1, 2).info).status()))
      << "another version";
}

TEST_P(DiskTierTest, ListsObjectsByShardThenKey) {
  auto tier = Open(OptionsHere());
  SyncDisk disk(tier.get());
  for (int i = 0; i < 30; ++i) ASSERT_TRUE(disk.Write(MakeObject(i)).ok());
  std::vector<std::pair<ShardId, ChunkKey>> seen;
  ASSERT_TRUE(tier->ForEach([&](const ObjectInfo& info) {
                    seen.emplace_back(info.shard, info.key);
                  })
                  .ok());
  EXPECT_EQ(seen.size(), 30u);
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
}

TEST_P(DiskTierTest, ADamagedByteIsTypedDroppedAndCounted) {
  const TestObject object = MakeObject(1);
  {
    auto tier = Open(OptionsHere());
    SyncDisk disk(tier.get());
    ASSERT_TRUE(disk.Write(object).ok());
  }
  FlipByte(SegmentsIn(directory_.path())[0], 4096 + 777);
  auto tier = Open(OptionsHere());
  SyncDisk disk(tier.get());
  EXPECT_TRUE(absl::IsDataLoss(disk.Read(object.info).status()));
  EXPECT_TRUE(absl::IsNotFound(disk.Read(object.info).status()));
  EXPECT_EQ(tier->counters().damaged, 1u);
}

TEST_P(DiskTierTest, TheIndexIsRebuiltFromTheSegments) {
  {
    auto tier = Open(OptionsHere());
    SyncDisk disk(tier.get());
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(disk.Write(MakeObject(i)).ok());
    ASSERT_TRUE(disk.Write(MakeObject(3, 2)).ok()) << "a newer version";
    ASSERT_TRUE(disk.Remove(MakeObject(5).info).ok());
  }
  fs::remove_all(directory_.path() + "/index");
  auto tier = Open(OptionsHere());
  ASSERT_NE(tier, nullptr);
  EXPECT_EQ(tier->counters().rebuilt_objects, 19u);
  SyncDisk disk(tier.get());
  for (int i = 0; i < 20; ++i) {
    const TestObject object = MakeObject(i, i == 3 ? 2 : 1);
    const auto back = disk.Read(object.info);
    if (i == 5) {
      EXPECT_TRUE(absl::IsNotFound(back.status())) << "the tombstone holds";
    } else {
      ASSERT_TRUE(back.ok()) << i << ": " << back.status();
      EXPECT_EQ(*back, object.bytes);
    }
  }
}

TEST_P(DiskTierTest, ADamagedIndexIsRebuilt) {
  {
    auto tier = Open(OptionsHere());
    SyncDisk disk(tier.get());
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(disk.Write(MakeObject(i)).ok());
  }
  std::ofstream(directory_.path() + "/index/CURRENT") << "nonsense";
  auto tier = Open(OptionsHere());
  ASSERT_NE(tier, nullptr);
  EXPECT_EQ(tier->counters().objects, 10u);
}

TEST_P(DiskTierTest, AHalfWrittenTailIsNotThereAfterARebuild) {
  {
    auto tier = Open(OptionsHere());
    SyncDisk disk(tier.get());
    ASSERT_TRUE(disk.Write(MakeObject(1)).ok());
    ASSERT_TRUE(disk.Write(MakeObject(2)).ok());
  }
  const fs::path file = SegmentsIn(directory_.path())[0];
  fs::resize_file(file, fs::file_size(file) - 4096);
  fs::remove_all(directory_.path() + "/index");
  auto tier = Open(OptionsHere());
  SyncDisk disk(tier.get());
  EXPECT_EQ(tier->counters().objects, 1u);
}

TEST_P(DiskTierTest, AFullTierEvictsTheOldestButNothingHeld) {
  DiskTier::Options options = OptionsHere();
  options.capacity_bytes = 1u << 20;
  const ChunkKey held = MakeObject(0).info.key;
  std::atomic<int> evicted = 0;
  options.holds = [held](const ChunkKey& key) { return key == held; };
  options.on_evicted = [&](const ObjectInfo& info) {
    EXPECT_NE(info.key, held);
    ++evicted;
  };
  auto tier = Open(std::move(options));
  SyncDisk disk(tier.get());
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(disk.Write(MakeObject(i)).ok()) << i;
    ASSERT_LE(tier->counters().segment_bytes, 1u << 20);
  }
  EXPECT_GT(evicted, 50);
  EXPECT_EQ(tier->counters().evictions, static_cast<uint64_t>(evicted));
  EXPECT_TRUE(disk.Read(MakeObject(0).info).ok());
  EXPECT_TRUE(disk.Read(MakeObject(199).info).ok());
}

TEST_P(DiskTierTest, ATierFullOfHeldObjectsRefuses) {
  DiskTier::Options options = OptionsHere();
  options.capacity_bytes = 512u << 10;
  options.holds = [](const ChunkKey&) { return true; };
  auto tier = Open(std::move(options));
  SyncDisk disk(tier.get());
  absl::Status status;
  int written = 0;
  while (status.ok() && written < 100) {
    status = disk.Write(MakeObject(written));
    if (status.ok()) ++written;
  }
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  for (int i = 0; i < written; ++i) {
    EXPECT_TRUE(disk.Read(MakeObject(i).info).ok()) << i;
  }
}

TEST_P(DiskTierTest, CleaningGivesBackTheRoomOfTheRemoved) {
  auto tier = Open(OptionsHere());
  SyncDisk disk(tier.get());
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(disk.Write(MakeObject(i)).ok());
  const uint64_t before = tier->counters().segment_bytes;
  for (int i = 0; i < 100; ++i) {
    if (i % 5 != 0) {
      ASSERT_TRUE(disk.Remove(MakeObject(i).info).ok());
    }
  }
  ASSERT_TRUE(tier->Flush().ok());
  EXPECT_GT(tier->counters().cleaned_segments, 0u);
  EXPECT_LT(tier->counters().segment_bytes, before);
  for (int i = 0; i < 100; i += 5) {
    const auto back = disk.Read(MakeObject(i).info);
    ASSERT_TRUE(back.ok()) << i << ": " << back.status();
    EXPECT_EQ(*back, MakeObject(i).bytes);
  }
}

TEST_P(DiskTierTest, ADirectoryHasOneUser) {
  auto tier = Open(OptionsHere());
  EXPECT_TRUE(absl::IsUnavailable(DiskTier::Open(OptionsHere()).status()));
}

TEST_P(DiskTierTest, ADirectoryOfSomethingElseIsLeftAlone) {
  std::ofstream(directory_.path() + "/STORE") << "my own file\n";
  EXPECT_TRUE(
      absl::IsFailedPrecondition(DiskTier::Open(OptionsHere()).status()));
}

INSTANTIATE_TEST_SUITE_P(UringAndPosix, DiskTierTest, testing::Bool());

}  // namespace
}  // namespace kdn::storage
