#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string_view>

#include "absl/time/clock.h"
#include "kv/clock.h"
#include "tests/integration/cluster_fixture.h"

namespace kdn::integration {
namespace {

// Metrics that stay 0 in a healthy cluster whose objects fit into memory.
constexpr std::string_view kOfTrouble[] = {
    "failures",
    "commits_existed",
    "evictions",
    "evictions_lost",
    "damaged",
    "chunks_failed",
    "chunks_recomputed",
    "engines_refused",
    "peer_refused",
    "hits_disk",
    "disk_reads",
    "disk_bytes_read",
    "disk_read_us",
    "disk_evictions",
    "disk_damaged",
    "disk_cleaned_segments",
    "disk_rebuilt_objects",
    "disk_write_failures",
    "disk_io_uring",
    "disk_direct",
    "rate.chunks_recomputed",
    "rate.late",
    "rate.slower_than_recompute",
};

bool IsOfTrouble(std::string_view name) {
  return std::find(std::begin(kOfTrouble), std::end(kOfTrouble), name) !=
         std::end(kOfTrouble);
}

// A model with half a megabyte of KV per chunk. Smaller chunks do not measure
// the rate of a link.
ModelSpec LargerModel() {
  ModelSpec model;
  model.name = "metrics";
  model.num_layers = 8;
  model.num_kv_heads = 4;
  model.head_dim = 64;
  model.rope.rotary_dim = 64;
  model.weights_digest = "w";
  return model;
}

class MetricsTest : public ClusterTest {
 protected:
  MetricsTest() : ClusterTest(LargerModel()) {}

  MetricValues OfAllNodes() {
    const auto nodes = client().Status(absl::Seconds(10));
    EXPECT_TRUE(nodes.ok()) << nodes.status();
    MetricValues sum;
    if (!nodes.ok()) return sum;
    for (const NodeStatus& node : *nodes) sum.Merge(node.metrics);
    return sum;
  }
  // Waits until `objects` are on disk: they are written after their stores are
  // answered.
  MetricValues OnceOnDisk(uint64_t objects) {
    const absl::Time deadline = SteadyNow() + absl::Seconds(20);
    MetricValues sum = OfAllNodes();
    while (SteadyNow() < deadline &&
           (sum["disk_objects"] < objects || sum["uptime_s"] == 0)) {
      absl::SleepFor(absl::Milliseconds(50));
      sum = OfAllNodes();
    }
    return sum;
  }
};

TEST_F(MetricsTest, EveryMetricIsCounted) {
  constexpr int kChunks = 10;
  Configure({});
  StartAll();
  for (int i = 0; i < kChunks; ++i) ASSERT_TRUE(Put(Make(i)).ok());
  ExpectAllHit(kChunks);
  ExpectAllHit(kChunks);  // over links of known rate
  std::vector<std::byte> kv;
  EXPECT_EQ(Get(Make(100), &kv).kind, OutcomeKind::kMiss);
  const ChunkRef pinned = Make(0).ref;
  const ChunkRef removed = Make(1).ref;
  ASSERT_TRUE(knowledge().Lookup({&pinned, 1}).ok());
  ASSERT_TRUE(knowledge().Pin({&pinned, 1}, absl::Minutes(1)).ok());
  // Answered when the other nodes have fetched it.
  ASSERT_TRUE(client().StoreCalibration(CalibrationFileOf(0, 1)).ok());
  const MetricValues before = OnceOnDisk(2 * kChunks);
  ASSERT_TRUE(knowledge().Remove({&removed, 1}).ok());
  const MetricValues after = OfAllNodes();
  EXPECT_EQ(after["removed"], 2u);
  EXPECT_EQ(after["objects"], 2u * (kChunks - 1));
  for (size_t i = 0; i < kMetricCount; ++i) {
    const Metric metric = Metric::At(i);
    const std::string_view name = metric.info().name;
    if (IsOfTrouble(name)) continue;
    if (metric.info().type == MetricType::kHistogram) {
      EXPECT_GT(after.histogram(metric).count(), 0u) << name;
      EXPECT_GT(after.histogram(metric).Quantile(1), 0u) << name;
    } else {
      EXPECT_GT(after[metric], 0u) << name;
    }
    if (metric.info().type == MetricType::kCounter) {
      EXPECT_GE(after[metric], before[metric]) << name;
    }
  }
}

}  // namespace
}  // namespace kdn::integration
