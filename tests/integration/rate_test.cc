// A link between two nodes that gives less than it did.
#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "tests/integration/cluster_fixture.h"
#include "tests/rpc/faulty_proxy.h"

namespace kdn::integration {
namespace {

constexpr int kTokens = 64;
constexpr size_t kChunks = 24;
constexpr double kFast = 4e6;  // bytes/s

// What the engine is connected to, and a node behind a link of its own that
// holds every chunk.
class RateTest : public ClusterTest {
 protected:
  void SetUp() override {
    cli::LocalClusterOptions options;
    options.nodes = 2;
    options.replicas = 1;
    options.disk_bytes = 0;
    Configure(options);
    const uint16_t port = cluster_->config().nodes[1].bulk_port;
    link_ = std::make_unique<rpc::FaultyProxy>(port, rpc::FaultyProxy::Fault());
    std::stringstream text;
    text << std::ifstream(directory_ + "/cluster.yaml").rdbuf();
    std::ofstream(directory_ + "/linked.yaml") << absl::StrReplaceAll(
        text.str(), {{absl::StrCat("bulk_port: ", port),
                      absl::StrCat("bulk_port: ", link_->port())}});
    first_ = std::make_unique<cli::ClusterProcess>(
        KDN_BINARY_DIR "/bin/kdn", directory_ + "/linked.yaml",
        cluster_->config(), directory_ + "/logs");
    ASSERT_TRUE(first_->Start(0).ok());
    ASSERT_TRUE(cluster_->Start(1).ok());
    ASSERT_TRUE(first_->WaitReady(0, 2, absl::Seconds(60)).ok());
    Connect(0);
    for (int i = 0; chunks_.size() < kChunks; ++i) {
      Chunk chunk = Make(i);
      chunk.spec.levels =
          LevelSet::Of(Level::kBase2).WithRefined().With(Level::kLossless);
      FillNormal(i, chunk);
      const auto receipt = Put(chunk);
      ASSERT_TRUE(receipt.ok()) << receipt.status();
      if (receipt->holders[0] == cluster_->config().nodes[1].id) {
        chunks_.push_back(std::move(chunk));
      }
    }
    link_->set_bytes_per_second(kFast);
  }

  static void FillNormal(int seed, Chunk& chunk) {
    std::mt19937 random(static_cast<uint32_t>(seed));
    std::normal_distribution<float> normal;
    std::vector<float> values(chunk.kv.size() / SizeOf(Model().dtype));
    for (float& value : values) value = normal(random);
    StoreFloats(Model().dtype, values.data(), values.size(), chunk.kv.data());
  }

  struct Got {
    size_t hits = 0;
    size_t recompute = 0;
    LevelSet levels;  // the least exact of each hit
    uint64_t wire_bytes = 0;
    absl::Duration took;
  };
  Got RetrieveAll(absl::Duration timeout, double prefill = 0) {
    const KvShape shape = ShapeOf(Model(), kTokens);
    std::vector<std::byte> memory(kChunks * shape.bytes());
    rpc::RetrieveSpec spec;
    spec.prefill_tokens_per_second = prefill;
    for (size_t i = 0; i < kChunks; ++i) {
      spec.chunks.push_back(
          {chunks_[i].ref, chunks_[i].spec.positions,
           MutableKvView(memory.data() + i * shape.bytes(), shape,
                         KvStrides::TokenMajor(shape))});
    }
    Got got;
    const absl::Time begin = absl::Now();
    const auto outcomes = knowledge().Retrieve(spec, nullptr, timeout);
    got.took = absl::Now() - begin;
    EXPECT_TRUE(outcomes.ok()) << outcomes.status();
    if (!outcomes.ok()) return got;
    for (const rpc::ChunkOutcome& outcome : *outcomes) {
      got.wire_bytes += outcome.wire_bytes;
      got.recompute += outcome.kind == rpc::OutcomeKind::kRecompute ? 1 : 0;
      if (outcome.kind != rpc::OutcomeKind::kHit) continue;
      ++got.hits;
      got.levels = got.levels.With(outcome.level);
    }
    return got;
  }

  std::unique_ptr<rpc::FaultyProxy> link_;
  std::unique_ptr<cli::ClusterProcess> first_;
  std::vector<Chunk> chunks_;
};

TEST_F(RateTest, AThrottledLinkMeetsTheDeadlineAtALowerLevel) {
  constexpr absl::Duration kDeadline = absl::Seconds(4);
  const LevelSet exact = LevelSet::Of(Level::kLossless);
  // Nothing is known of the link: it is tried, and learnt.
  EXPECT_EQ(RetrieveAll(absl::Seconds(30)).hits, kChunks);
  const Got before = RetrieveAll(kDeadline);
  EXPECT_EQ(before.hits, kChunks);
  EXPECT_EQ(before.levels, exact);
  link_->set_bytes_per_second(kFast / 10);
  // What was learnt is too hopeful once.
  RetrieveAll(kDeadline);
  const Got after = RetrieveAll(kDeadline);
  EXPECT_EQ(after.hits, kChunks);
  EXPECT_EQ(after.recompute, 0u);
  EXPECT_LT(after.took, kDeadline);
  EXPECT_NE(after.levels, exact);
  EXPECT_LT(after.wire_bytes, before.wire_bytes);
  const rpc::RateCounters rate = StatusOf(0).rate;
  EXPECT_GE(rate.plans, 4u);
  EXPECT_EQ(rate.plans_blind, 1u);
  EXPECT_GT(rate.bytes_predicted, 0u);
}

TEST_F(RateTest, WhatTheEngineDoesFasterIsLeftToIt) {
  EXPECT_EQ(RetrieveAll(absl::Seconds(30)).hits, kChunks);
  // The base level takes some 20 bytes a token and more of such a link.
  const Got fast = RetrieveAll(absl::Seconds(30), 1e9);
  EXPECT_EQ(fast.recompute, kChunks);
  EXPECT_EQ(fast.wire_bytes, 0u);
  const Got slow = RetrieveAll(absl::Seconds(30), 100.0);
  EXPECT_EQ(slow.hits, kChunks);
  const rpc::NodeStatus status = StatusOf(0);
  EXPECT_EQ(status.chunks_recomputed, kChunks);
  EXPECT_EQ(status.rate.chunks_recomputed, kChunks);
  EXPECT_EQ(status.rate.slower_than_recompute, 0u);
}

}  // namespace
}  // namespace kdn::integration
