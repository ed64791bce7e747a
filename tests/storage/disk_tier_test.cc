#include "storage/disk_tier.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <thread>

#include "absl/synchronization/blocking_counter.h"
#include "storage/disk_index.h"
#include "storage/record.h"
#include "tests/storage/disk_fixture.h"

namespace kdn::storage {
namespace {

namespace fs = std::filesystem;

DiskTier::Options Options(const std::string& directory) {
  DiskTier::Options options;
  options.directory = directory;
  options.clock = TestClock();
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

class DiskTierTest : public testing::TestWithParam<bool> {
 protected:
  DiskTier::Options OptionsHere() {
    DiskTier::Options options = Options(directory_.path());
    options.use_io_uring = GetParam();
    return options;
  }
  TempDirectory directory_;
};

TEST_P(DiskTierTest, GivesBackTheSameBytesAlsoAfterARestart) {
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
    EXPECT_EQ(tier->counters()["disk_objects"], 60u);
  }
}

TEST_P(DiskTierTest, AReadOfAnObjectOrVersionThatIsMissingIsNotFound) {
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

TEST_P(DiskTierTest, ADamagedRecordIsDataLossAndIsDroppedAndCounted) {
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
  EXPECT_EQ(tier->counters()["disk_damaged"], 1u);
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
  EXPECT_EQ(tier->counters()["disk_rebuilt_objects"], 19u);
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

// A clock that shows the two times of its constructor.
class SetClock final : public Clock {
 public:
  SetClock(absl::Time now, absl::Time wall_now)
      : now_(now), wall_now_(wall_now) {}
  absl::Time Now() const override { return now_; }
  absl::Time WallNow() const override { return wall_now_; }

 private:
  absl::Time now_;
  absl::Time wall_now_;
};

// After a restart the monotonic clock starts anew, but the TTL still ends at
// the same wall-clock time.
TEST_P(DiskTierTest, ATtlSurvivesARestartAndARebuild) {
  const absl::Time morning = absl::FromUnixSeconds(1790000000);
  const SetClock before(absl::UnixEpoch() + absl::Hours(500), morning);
  const SetClock after(absl::UnixEpoch() + absl::Minutes(1),
                       morning + absl::Minutes(10));
  TestObject with_ttl = MakeObject(1);
  with_ttl.info.expires = before.Now() + absl::Hours(1);
  with_ttl.info.depth = 5;
  TestObject over = MakeObject(2);
  over.info.expires = before.Now() + absl::Minutes(9);
  for (int run = 0; run < 3; ++run) {
    SCOPED_TRACE(run);
    DiskTier::Options options = OptionsHere();
    options.clock = run == 0 ? &before : &after;
    if (run == 2) fs::remove_all(directory_.path() + "/index");
    auto tier = Open(options);
    ASSERT_NE(tier, nullptr);
    SyncDisk disk(tier.get());
    for (const TestObject& object : {with_ttl, over, MakeObject(3)}) {
      if (run == 0) {
        ASSERT_TRUE(disk.Write(object).ok());
      }
    }
    std::map<ChunkKey, ObjectInfo> seen;
    ASSERT_TRUE(
        tier->ForEach([&](const ObjectInfo& info) { seen[info.key] = info; })
            .ok());
    ASSERT_EQ(seen.size(), 3u)
        << "an object is also listed after its TTL has ended";
    const absl::Duration passed =
        run == 0 ? absl::ZeroDuration() : absl::Minutes(10);
    EXPECT_EQ(seen[with_ttl.info.key].expires,
              options.clock->Now() + absl::Hours(1) - passed);
    EXPECT_EQ(seen[with_ttl.info.key].depth, 5u);
    EXPECT_EQ(seen[over.info.key].expires,
              options.clock->Now() + absl::Minutes(9) - passed);
    EXPECT_EQ(seen[MakeObject(3).info.key].expires, absl::InfinitePast());
  }
}

TEST_P(DiskTierTest, OneKeyUnderTwoShardsIsTwoObjects) {
  TestObject one = MakeObject(1);
  TestObject other = MakeObject(1, 2);
  other.info.shard = ShardId(one.info.shard.value() + 1);
  for (int run = 0; run < 3; ++run) {
    SCOPED_TRACE(run);
    auto tier = Open(OptionsHere());
    ASSERT_NE(tier, nullptr);
    SyncDisk disk(tier.get());
    if (run == 0) {
      ASSERT_TRUE(disk.Write(other).ok());
      ASSERT_TRUE(disk.Write(one).ok());
    }
    EXPECT_EQ(tier->counters()["disk_objects"], run < 2 ? 2u : 1u);
    const auto back = disk.Read(one.info);
    EXPECT_EQ(back.ok(), run < 2) << back.status();
    EXPECT_EQ(*disk.Read(other.info), other.bytes);
    if (run == 1) {
      ASSERT_TRUE(disk.Remove(one.info).ok());
      tier.reset();
      // The rebuild must apply the tombstone to one shard only.
      fs::remove_all(directory_.path() + "/index");
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
  EXPECT_EQ(tier->counters()["disk_objects"], 10u);
}

TEST_P(DiskTierTest, ARebuildPassesOverAHalfWrittenRecord) {
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
  EXPECT_EQ(tier->counters()["disk_objects"], 1u);
}

// Each eviction needs room to move one held record.
TEST_P(DiskTierTest, AHeldRecordInEachSegmentStopsNoWrite) {
  DiskTier::Options options = OptionsHere();
  const uint64_t record = RecordBytes(MakeObject(0).info.bytes);
  options.segment_bytes = 4 * record;
  options.capacity_bytes = 8 * options.segment_bytes;
  std::set<ChunkKey> held;
  for (int i = 0; i < 32; i += 4) held.insert(MakeObject(i).info.key);
  options.holds = [held](ShardId, const ChunkKey& key) {
    return held.contains(key);
  };
  auto tier = Open(std::move(options));
  SyncDisk disk(tier.get());
  for (int i = 0; i < 100; ++i) {
    const absl::Status status = disk.Write(MakeObject(i));
    ASSERT_TRUE(status.ok()) << i << ": " << status;
    ASSERT_LE(tier->counters()["disk_segment_bytes"], 32 * record);
  }
  for (int i = 0; i < 32; i += 4) {
    const auto back = disk.Read(MakeObject(i).info);
    ASSERT_TRUE(back.ok()) << i << ": " << back.status();
    EXPECT_EQ(*back, MakeObject(i).bytes);
  }
}

TEST_P(DiskTierTest, ObjectsThatAreReadStayOnDisk) {
  DiskTier::Options options = OptionsHere();
  options.capacity_bytes = 1u << 20;
  options.segment_bytes = 128u << 10;
  auto tier = Open(std::move(options));
  SyncDisk disk(tier.get());
  for (int i = 0; i < 300; ++i) {
    ASSERT_TRUE(disk.Write(MakeObject(i)).ok()) << i;
    ASSERT_TRUE(disk.Read(MakeObject(0).info).ok()) << "at " << i;
    if (i >= 9) tier->Touch(MakeObject(9).info.shard, MakeObject(9).info.key);
  }
  EXPECT_TRUE(disk.Read(MakeObject(9).info).ok()) << "touched";
  EXPECT_TRUE(absl::IsNotFound(disk.Read(MakeObject(1).info).status()));
}

TEST_P(DiskTierTest, ReleasedObjectsMakeRoom) {
  DiskTier::Options options = OptionsHere();
  options.capacity_bytes = 512u << 10;
  std::atomic<bool> held = true;
  options.holds = [&](ShardId, const ChunkKey&) { return held.load(); };
  auto tier = Open(std::move(options));
  SyncDisk disk(tier.get());
  int written = 0;
  while (disk.Write(MakeObject(written)).ok()) ++written;
  held = false;
  const ObjectInfo released = MakeObject(2).info;
  tier->HeldChanged(released.shard, released.key);
  ASSERT_TRUE(tier->Flush().ok());
  EXPECT_TRUE(disk.Write(MakeObject(1000)).ok());
  EXPECT_TRUE(absl::IsNotFound(disk.Read(released).status()));
}

TEST_P(DiskTierTest, ConfirmsTheHoldOfAnObjectThatItHas) {
  DiskTier::Options options = OptionsHere();
  options.capacity_bytes = 512u << 10;
  std::atomic<bool> held = false;
  options.holds = [&](ShardId, const ChunkKey& key) {
    return held && key == MakeObject(0).info.key;
  };
  auto tier = Open(std::move(options));
  SyncDisk disk(tier.get());
  EXPECT_TRUE(absl::IsNotFound(disk.ConfirmHeld(MakeObject(0).info)));
  ASSERT_TRUE(disk.Write(MakeObject(0)).ok());
  held = true;
  EXPECT_TRUE(disk.ConfirmHeld(MakeObject(0).info).ok());
  for (int i = 1; i < 100; ++i) ASSERT_TRUE(disk.Write(MakeObject(i)).ok());
  EXPECT_TRUE(disk.Read(MakeObject(0).info).ok());
  EXPECT_TRUE(absl::IsNotFound(disk.ConfirmHeld(MakeObject(1).info)))
      << "evicted";
}

// After a start, a TTL holds its object even before the partition can report
// the hold.
TEST_P(DiskTierTest, AReadDoesNotWaitForTheConfirmationOfAHold) {
  absl::Notification go_on;
  std::atomic<bool> confirming{false};
  DiskTier::Options options = OptionsHere();
  options.holds = [&](ShardId, const ChunkKey&) {
    if (confirming) go_on.WaitForNotification();
    return false;
  };
  auto tier = *DiskTier::Open(std::move(options));
  SyncDisk disk(tier.get());
  const TestObject object = MakeObject(1);
  ASSERT_TRUE(disk.Write(object).ok());
  confirming = true;
  absl::Notification confirmed;
  tier->ConfirmHeld(object.info.shard, object.info.key,
                    [&](const absl::Status& status) {
                      EXPECT_TRUE(status.ok()) << status;
                      confirmed.Notify();
                    });
  absl::Notification read;
  auto arena = *Arena::Create(1u << 20);
  tier->Read(object.info, *arena->Allocate(object.info.bytes),
             [&](const absl::Status& status) {
               EXPECT_TRUE(status.ok()) << status;
               read.Notify();
             });
  EXPECT_TRUE(read.WaitForNotificationWithTimeout(absl::Seconds(10)));
  EXPECT_FALSE(confirmed.HasBeenNotified());
  go_on.Notify();
  confirmed.WaitForNotification();
  read.WaitForNotification();
}

TEST_P(DiskTierTest, ATtlHoldsItsObjectFromTheStart) {
  const SetClock clock(absl::UnixEpoch() + absl::Hours(500),
                       absl::FromUnixSeconds(1790000000));
  TestObject with_ttl = MakeObject(1);
  with_ttl.info.expires = clock.Now() + absl::Hours(1);
  for (int run = 0; run < 2; ++run) {
    DiskTier::Options options = OptionsHere();
    options.clock = &clock;
    options.capacity_bytes = 512u << 10;
    auto tier = Open(std::move(options));
    SyncDisk disk(tier.get());
    if (run == 0) {
      ASSERT_TRUE(disk.Write(with_ttl).ok());
    }
    for (int i = 2; i < 100 && run == 1; ++i) {
      ASSERT_TRUE(disk.Write(MakeObject(i)).ok());
    }
    EXPECT_TRUE(disk.Read(with_ttl.info).ok()) << run;
  }
}

TEST_P(DiskTierTest, AnAmendedTtlHoldsItsObjectFromTheNextStart) {
  const SetClock clock(absl::UnixEpoch() + absl::Hours(500),
                       absl::FromUnixSeconds(1790000000));
  TestObject object = MakeObject(1);
  for (int run = 0; run < 2; ++run) {
    DiskTier::Options options = OptionsHere();
    options.clock = &clock;
    options.capacity_bytes = 512u << 10;
    auto tier = Open(std::move(options));
    SyncDisk disk(tier.get());
    EXPECT_TRUE(absl::IsNotFound(disk.Amend(MakeObject(99).info)));
    if (run == 0) {
      ASSERT_TRUE(disk.Write(object).ok());
      object.info.expires = clock.Now() + absl::Hours(1);
      object.info.durability = Durability::kDurable;
      ASSERT_TRUE(disk.Amend(object.info, /*sync=*/true).ok());
    }
    int seen = 0;
    ASSERT_TRUE(tier->ForEach([&](const ObjectInfo& info) {
                      ++seen;
                      EXPECT_EQ(info.expires, object.info.expires);
                      EXPECT_EQ(info.durability, Durability::kDurable);
                    })
                    .ok());
    EXPECT_EQ(seen, 1);
    for (int i = 2; i < 90 && run == 1; ++i) {
      ASSERT_TRUE(disk.Write(MakeObject(i)).ok());
    }
    EXPECT_TRUE(disk.Read(object.info).ok()) << run;
  }
}

TEST_P(DiskTierTest, AFullTierEvictsTheOldestObjectsThatAreNotHeld) {
  DiskTier::Options options = OptionsHere();
  options.capacity_bytes = 1u << 20;
  const ChunkKey held = MakeObject(0).info.key;
  std::atomic<int> evicted = 0;
  options.holds = [held](ShardId, const ChunkKey& key) { return key == held; };
  options.on_evicted = [&](const ObjectInfo& info) {
    EXPECT_NE(info.key, held);
    ++evicted;
  };
  auto tier = Open(std::move(options));
  SyncDisk disk(tier.get());
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(disk.Write(MakeObject(i)).ok()) << i;
    ASSERT_LE(tier->counters()["disk_segment_bytes"], 1u << 20);
  }
  ASSERT_TRUE(tier->Flush().ok());  // all evictions have been reported
  EXPECT_GT(evicted, 50);
  EXPECT_EQ(tier->counters()["disk_evictions"], static_cast<uint64_t>(evicted));
  EXPECT_TRUE(disk.Read(MakeObject(0).info).ok());
  EXPECT_TRUE(disk.Read(MakeObject(199).info).ok());
}

TEST_P(DiskTierTest, ATierFullOfHeldObjectsRefuses) {
  DiskTier::Options options = OptionsHere();
  options.capacity_bytes = 512u << 10;
  options.holds = [](ShardId, const ChunkKey&) { return true; };
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

TEST_P(DiskTierTest, ARemovalFromATierFullOfHeldObjectsHolds) {
  DiskTier::Options options = OptionsHere();
  // Room for 28 records, four in a segment, and for one free segment.
  options.capacity_bytes = 512u << 10;
  options.segment_bytes = 64u << 10;
  options.holds = [](ShardId, const ChunkKey&) { return true; };
  for (int run = 0; run < 2; ++run) {
    SCOPED_TRACE(run);
    auto tier = Open(options);
    ASSERT_NE(tier, nullptr);
    SyncDisk disk(tier.get());
    for (int i = 0; i < 28 && run == 0; ++i) {
      ASSERT_TRUE(disk.Write(MakeObject(i)).ok()) << i;
    }
    for (int i = 0; i < 4 && run == 0; ++i) {
      const absl::Status status = disk.Remove(MakeObject(i).info);
      EXPECT_TRUE(status.ok()) << i << ": " << status;
    }
    for (int i = 0; i < 28; ++i) {
      EXPECT_EQ(disk.Read(MakeObject(i).info).ok(), i >= 4) << i;
    }
    if (run == 1) {
      EXPECT_TRUE(disk.Write(MakeObject(99)).ok());
    }
  }
}

TEST_P(DiskTierTest, CleaningGivesBackTheRoomOfRemovedObjects) {
  auto tier = Open(OptionsHere());
  SyncDisk disk(tier.get());
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(disk.Write(MakeObject(i)).ok());
  const uint64_t before = tier->counters()["disk_segment_bytes"];
  for (int i = 0; i < 100; ++i) {
    if (i % 5 != 0) {
      ASSERT_TRUE(disk.Remove(MakeObject(i).info).ok());
    }
  }
  WaitUntil([&] { return tier->counters()["disk_segment_bytes"] < before; });
  EXPECT_GT(tier->counters()["disk_cleaned_segments"], 0u);
  for (int i = 0; i < 100; i += 5) {
    const auto back = disk.Read(MakeObject(i).info);
    ASSERT_TRUE(back.ok()) << i << ": " << back.status();
    EXPECT_EQ(*back, MakeObject(i).bytes);
  }
}

TEST_P(DiskTierTest, ARebuildCutShortIsBegunAgain) {
  {
    auto tier = Open(OptionsHere());
    SyncDisk disk(tier.get());
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(disk.Write(MakeObject(i)).ok());
  }
  // A kill in the middle of a rebuild leaves a valid index that lacks records.
  fs::remove_all(directory_.path() + "/index");
  ASSERT_TRUE(DiskIndex::Open(directory_.path() + "/index").ok());
  auto tier = Open(OptionsHere());
  ASSERT_NE(tier, nullptr);
  EXPECT_EQ(tier->counters()["disk_objects"], 20u);
  EXPECT_EQ(tier->counters()["disk_rebuilt_objects"], 20u);
}

TEST_P(DiskTierTest, RemovedObjectsStayRemovedThroughCleaningAndARebuild) {
  {
    auto tier = Open(OptionsHere());
    SyncDisk disk(tier.get());
    for (int i = 0; i < 100; ++i) ASSERT_TRUE(disk.Write(MakeObject(i)).ok());
    for (int i = 0; i < 100; ++i) {
      if (i % 5 == 0) continue;
      ASSERT_TRUE(disk.Remove(MakeObject(i).info).ok());
    }
    WaitUntil([&] { return tier->counters()["disk_cleaned_segments"] > 3; });
    // The cleaning has moved these two objects.
    ASSERT_TRUE(disk.Remove(MakeObject(0).info).ok());
    ASSERT_TRUE(disk.Write(MakeObject(5, 2)).ok());
  }
  fs::remove_all(directory_.path() + "/index");
  auto tier = Open(OptionsHere());
  SyncDisk disk(tier.get());
  for (int i = 0; i < 100; ++i) {
    const TestObject object = MakeObject(i, i == 5 ? 2 : 1);
    const auto back = disk.Read(object.info);
    if (i % 5 != 0 || i == 0) {
      EXPECT_TRUE(absl::IsNotFound(back.status())) << i << back.status();
    } else {
      ASSERT_TRUE(back.ok()) << i << ": " << back.status();
      EXPECT_EQ(*back, object.bytes);
    }
  }
}

// The number of an object that does not share a disk thread with object `than`;
// the number is at least `from`.
int IdOnAnotherThread(int than, int from) {
  const auto thread = [](int id) {
    return OwnBits(MakeObject(id).info.key) % 4;
  };
  while (thread(from) == thread(than)) ++from;
  return from;
}

TEST_P(DiskTierTest, ACopyThatLosesAgainstARemovalIsNotFoundByARebuild) {
  const ObjectInfo moved = MakeObject(0).info;
  {
    DiskTier::Options options = OptionsHere();
    options.segment_bytes = 64u << 10;  // four records
    options.clean_below_live = 0;       // a cleaning would delete the copy
    const uint64_t record = RecordBytes(moved.bytes);
    // The segment that stays free is included.
    options.capacity_bytes = 24 * record + 10 * kRecordPage;
    std::atomic<DiskTier*> tier_in_use = nullptr;
    std::atomic<int> asked = 0;
    options.holds = [&](ShardId, const ChunkKey& key) {
      if (key != moved.key) return false;
      // The tier asks when it writes the object, and again right before it
      // moves the object. The second time, the object is removed.
      if (++asked == 2) {
        EXPECT_TRUE(SyncDisk(tier_in_use).Remove(moved).ok());
      }
      return true;
    };
    auto tier = Open(std::move(options));
    tier_in_use = tier.get();
    SyncDisk disk(tier.get());
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(disk.Write(MakeObject(i)).ok());
    const int other = IdOnAnotherThread(0, /*from=*/100);
    ASSERT_TRUE(disk.Write(MakeObject(other, 1, 50000)).ok());
    EXPECT_EQ(asked, 2);
  }
  fs::remove_all(directory_.path() + "/index");
  auto tier = Open(OptionsHere());
  EXPECT_TRUE(absl::IsNotFound(SyncDisk(tier.get()).Read(moved).status()));
}

TEST_P(DiskTierTest, AReadFindsItsObjectWhileCleaningMovesIt) {
  DiskTier::Options options = OptionsHere();
  options.segment_bytes = 64u << 10;
  auto tier = Open(std::move(options));
  SyncDisk disk(tier.get());
  constexpr int kKept = 8;
  std::atomic<bool> done = false;
  std::atomic<int> reads = 0;
  for (int i = 0; i < kKept; ++i) ASSERT_TRUE(disk.Write(MakeObject(i)).ok());
  std::thread reader([&] {
    SyncDisk own(tier.get());
    for (int i = 0; !done; i = (i + 1) % kKept, ++reads) {
      const auto back = own.Read(MakeObject(i).info);
      EXPECT_TRUE(back.ok()) << i << ": " << back.status();
    }
  });
  // The cleaner moves every kept object again and again.
  for (int i = 100; i < 220; ++i) {
    EXPECT_TRUE(disk.Write(MakeObject(i)).ok());
    EXPECT_TRUE(disk.Remove(MakeObject(i).info).ok());
    EXPECT_TRUE(disk.Write(MakeObject(i % kKept)).ok());
  }
  WaitUntil([&] { return tier->counters()["disk_cleaned_segments"] > 10; });
  done = true;
  reader.join();
  EXPECT_GT(reads, 0);
  EXPECT_GT(tier->counters()["disk_cleaned_segments"], 10u);
}

TEST_P(DiskTierTest, ARemovalHoldsWhileCleaningMovesItsObject) {
  DiskTier::Options options = OptionsHere();
  options.segment_bytes = 64u << 10;
  auto tier = Open(std::move(options));
  for (int round = 0; round < 25; ++round) {
    std::vector<ObjectInfo> removed;
    SyncDisk disk(tier.get());
    for (int i = 0; i < 32; ++i) {
      removed.push_back(MakeObject(round * 100 + i).info);
      ASSERT_TRUE(disk.Write(MakeObject(round * 100 + i)).ok());
    }
    // All at once: the cleaner moves records that lanes are removing.
    absl::BlockingCounter left(static_cast<int>(removed.size()));
    for (const ObjectInfo& info : removed) {
      tier->Remove(info.shard, info.key, [&](absl::Status status) {
        EXPECT_TRUE(status.ok()) << status;
        left.DecrementCount();
      });
    }
    left.Wait();
    ASSERT_TRUE(tier->Flush().ok());
    EXPECT_EQ(tier->counters()["disk_objects"], 0u) << "round " << round;
  }
}

TEST_P(DiskTierTest, TooManyRequestsAreRefusedInTurnButRemovalsGetIn) {
  DiskTier::Options options = OptionsHere();
  options.requests_max = 2;
  auto tier = Open(std::move(options));
  auto arena = *Arena::Create(1u << 20);
  const TestObject object = MakeObject(1);
  absl::Notification answering;
  absl::Notification let_go;
  std::vector<absl::StatusCode> answers;  // all from one disk thread
  const auto write = [&](bool wait) {
    std::shared_ptr<ArenaBlock> block = *arena->Allocate(object.info.bytes);
    tier->Write(object.info, block, false, [&, wait](absl::Status status) {
      answers.push_back(status.code());
      if (!wait) return;
      answering.Notify();
      let_go.WaitForNotification();
    });
  };
  write(true);
  answering.WaitForNotification();
  for (int i = 0; i < 3; ++i) write(false);
  absl::Notification removed;
  tier->Remove(object.info.shard, object.info.key, [&](absl::Status status) {
    answers.push_back(status.code());
    removed.Notify();
  });
  let_go.Notify();
  removed.WaitForNotification();
  using Code = absl::StatusCode;
  EXPECT_EQ(answers, (std::vector<Code>{Code::kOk, Code::kOk, Code::kOk,
                                        Code::kResourceExhausted, Code::kOk}));
  EXPECT_TRUE(absl::IsNotFound(SyncDisk(tier.get()).Read(object.info).status()))
      << "removed";
}

TEST_P(DiskTierTest, ADirectoryHasOneUser) {
  auto tier = Open(OptionsHere());
  EXPECT_TRUE(absl::IsUnavailable(DiskTier::Open(OptionsHere()).status()));
}

TEST_P(DiskTierTest, ADirectoryOfAnotherProgramIsRefused) {
  std::ofstream(directory_.path() + "/STORE") << "my own file\n";
  EXPECT_TRUE(
      absl::IsFailedPrecondition(DiskTier::Open(OptionsHere()).status()));
}

INSTANTIATE_TEST_SUITE_P(UringAndPosix, DiskTierTest, testing::Bool());

}  // namespace
}  // namespace kdn::storage
