// Calibrations reach every node of a real cluster.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kv/clock.h"
#include "tests/integration/cluster_fixture.h"

namespace kdn::integration {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(30);

class CalibrationsTest : public ClusterTest {
 protected:
  // Chunk number `i`, to store at `base`. The values are finite.
  Chunk MakeBase(int i) const {
    Chunk chunk = Make(i);
    chunk.spec.levels = LevelSet::Of(Level::kBase);
    std::fill(chunk.kv.begin(), chunk.kv.end(), std::byte{0});
    return chunk;
  }
  // The last value of V of a chunk that `node` delivers.
  float LastValue(size_t node, const Chunk& chunk) {
    Connect(node);
    std::vector<std::byte> kv;
    const ChunkOutcome outcome = Get(chunk, &kv);
    EXPECT_EQ(outcome.kind, OutcomeKind::kHit)
        << "node " << node << ": " << outcome.why;
    float value = 0;
    LoadFloats(Model().dtype, kv.data() + kv.size() - 2, 1, &value);
    return value;
  }
  CalibrationReceipt StoreAt(size_t node, const std::vector<std::byte>& file) {
    Connect(node);
    const auto receipt = client().StoreCalibration(file);
    EXPECT_TRUE(receipt.ok()) << receipt.status();
    return receipt.ok() ? *receipt : CalibrationReceipt();
  }
  // Waits until `node` has `count` calibrations. Returns them.
  std::vector<CalibrationEntry> Await(size_t node, size_t count) {
    Connect(node);
    const absl::Time limit = SteadyNow() + kPatience;
    std::vector<CalibrationEntry> entries;
    while (entries.size() != count && SteadyNow() < limit) {
      const auto all = client().Calibrations();
      EXPECT_TRUE(all.ok()) << all.status();
      if (!all.ok()) break;
      entries = *all;
    }
    EXPECT_EQ(entries.size(), count) << "node " << node;
    return entries;
  }
  void StartFirst(size_t count) {
    for (size_t i = 0; i < count; ++i) ASSERT_TRUE(cluster_->Start(i).ok());
    for (size_t i = 0; i < count; ++i) {
      const absl::Status ready =
          cluster_->WaitReady(i, static_cast<int>(count), kPatience);
      ASSERT_TRUE(ready.ok()) << ready;
    }
  }
};

TEST_F(CalibrationsTest, ANodeThatWasDownAndANodeThatJoinsDeliver) {
  Configure({.nodes = 4});
  StartFirst(3);
  cluster_->Kill(2, SIGTERM);
  const CalibrationReceipt receipt = StoreAt(0, CalibrationFileOf(0.25f, 1));
  EXPECT_GE(receipt.holders.size(), 2u);
  const Chunk chunk = MakeBase(1);
  const auto stored = Put(chunk);
  ASSERT_TRUE(stored.ok()) << stored.status();
  for (const size_t node : {2, 3}) {
    ASSERT_TRUE(cluster_->Start(node).ok());
    const absl::Status ready =
        cluster_->WaitReady(node, static_cast<int>(node) + 1, kPatience);
    ASSERT_TRUE(ready.ok()) << ready;
    EXPECT_EQ(LastValue(node, chunk), 0.25f);
    EXPECT_EQ(Await(node, 1)[0].id, receipt.id);
  }
}

TEST_F(CalibrationsTest, TheNodeThatAnsweredMayDieAtOnce) {
  Configure({.nodes = 3});
  StartAll();
  const CalibrationReceipt receipt = StoreAt(0, CalibrationFileOf(0.5f, 1));
  cluster_->Kill(0, SIGKILL);
  EXPECT_EQ(receipt.holders.size(), 3u);
  for (const size_t node : {1, 2}) {
    Connect(node);
    const auto all = client().Calibrations();
    ASSERT_TRUE(all.ok()) << all.status();
    ASSERT_EQ(all->size(), 1u);
    EXPECT_EQ(all->front().id, receipt.id);
  }
  const Chunk chunk = MakeBase(1);
  ASSERT_TRUE(Put(chunk).ok());
  EXPECT_EQ(LastValue(1, chunk), 0.5f);
  StopAll(SIGKILL);
  StartAll();
  for (const size_t node : {0, 1, 2}) EXPECT_EQ(LastValue(node, chunk), 0.5f);
}

TEST_F(CalibrationsTest, NodesWithoutADiskHaveThemFromEachOther) {
  Configure({.nodes = 3, .disk_bytes = 0});
  StartAll();
  StoreAt(0, CalibrationFileOf(0.5f, 1));
  cluster_->Kill(0, SIGTERM);
  ASSERT_TRUE(cluster_->Start(0).ok());
  ASSERT_TRUE(cluster_->WaitAllReady(kPatience).ok());
  Await(0, 1);
}

TEST_F(CalibrationsTest, AllNodesChooseTheOneThatWasMadeLast) {
  Configure({.nodes = 3});
  StartAll();
  const CalibrationReceipt newer = StoreAt(0, CalibrationFileOf(0.75f, 20));
  const CalibrationReceipt older = StoreAt(1, CalibrationFileOf(0.25f, 10));
  const CalibrationReceipt unknown = StoreAt(2, CalibrationFileOf(0.5f, 0));
  for (const size_t node : {0, 1, 2}) {
    const auto entries = Await(node, 3);
    ASSERT_EQ(entries.size(), 3u);
    EXPECT_EQ(entries[0].id, newer.id);
    EXPECT_EQ(entries[1].id, older.id);
    EXPECT_EQ(entries[2].id, unknown.id);
    const Chunk chunk = MakeBase(static_cast<int>(node));
    ASSERT_TRUE(Put(chunk).ok());
    EXPECT_EQ(LastValue((node + 1) % 3, chunk), 0.75f);
  }
}

TEST_F(CalibrationsTest, BytesThatAreNoCalibrationChangeNothing) {
  Configure({.nodes = 2});
  StartAll();
  std::vector<std::byte> file = CalibrationFileOf(0.25f, 1);
  file[file.size() / 2] ^= std::byte{1};
  for (const auto& bytes : {file, std::vector<std::byte>(1u << 20)}) {
    const auto receipt = client().StoreCalibration(bytes);
    EXPECT_TRUE(absl::IsDataLoss(receipt.status())) << receipt.status();
  }
  const auto all = client().Calibrations();
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_TRUE(all->empty());
}

}  // namespace
}  // namespace kdn::integration
