#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "codec/cuda/batch_plan.h"
#include "codec/cuda/device_stream.h"
#include "codec/cuda/host_batch.h"
#include "codec/cuda/host_warp.h"
#include "tests/codec/cuda/gpu_test_chunk.h"

namespace kdn::codec::cuda {
namespace {

constexpr Level kTransformLevels[] = {Level::kArchive, Level::kBase,
                                      Level::kBase1, Level::kBase2};

struct Case {
  const char* name;
  KvShape shape;
  int joint_heads;
  int rotary_dim;
  RopePairing pairing = RopePairing::kNeoX;
  Layout layout = Layout::kTokenMajor;
};

std::string NameOf(const testing::TestParamInfo<Case>& info) {
  return info.param.name;
}

KvShape Shape(int heads, int tokens, int dim, Dtype dtype = Dtype::kBf16) {
  return {2, heads, tokens, dim, dtype};
}

ChunkOptions OptionsOf(const KvShape& shape, int rotary_dim,
                       RopePairing pairing = RopePairing::kNeoX) {
  ChunkOptions options;
  options.shape = shape;
  options.rotary_dim = rotary_dim;
  options.pairing = pairing;
  options.levels =
      LevelSet::Of(Level::kBase2).WithRefined().With(Level::kArchive);
  return options;
}

// Compares the code of a warp with the CPU's decoder, on streams that K and V
// share.
class JointStreamTest : public testing::TestWithParam<Case> {
 protected:
  JointStreamTest()
      : chunk_(JointTestChunk(OptionsOf(GetParam().shape, GetParam().rotary_dim,
                                        GetParam().pairing),
                              GetParam().joint_heads, 11)) {}

  void ExpectSame(Level level, const KvSlice& slice) const {
    const absl::Status same =
        CompareWithCpu(chunk_, level, slice, GetParam().layout);
    EXPECT_TRUE(same.ok()) << same;
  }

  GpuTestChunk chunk_;
};

TEST_P(JointStreamTest, GivesTheBitsOfTheCpu) {
  for (const Level level : kTransformLevels) {
    SCOPED_TRACE(static_cast<int>(level));
    ExpectSame(level, chunk_.All());
  }
}

TEST_P(JointStreamTest, GivesTheBitsOfTheCpuInSlices) {
  KvSlice slice = chunk_.All();
  ++slice.layer_begin;
  if (slice.heads() > 1) ++slice.head_begin;
  ExpectSame(Level::kBase1, slice);
  slice = chunk_.All();
  slice.layer_end = 1;
  if (slice.heads() > 1) --slice.head_end;
  ExpectSame(Level::kBase2, slice);
  slice.head_begin = slice.head_end - 1;
  ExpectSame(Level::kArchive, slice);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, JointStreamTest,
    testing::Values(
        Case{"llama", Shape(4, 40, 128), 2, 128},
        Case{"one_head", Shape(2, 100, 128), 1, 128},
        Case{"fp16", Shape(2, 41, 128, Dtype::kFp16), 1, 128},
        Case{"fp32", Shape(2, 47, 128, Dtype::kFp32), 1, 128},
        Case{"neighbours", Shape(2, 33, 128), 1, 128, RopePairing::kGptJ},
        Case{"few_neighbours", Shape(2, 50, 64), 2, 24, RopePairing::kGptJ},
        Case{"four_heads", Shape(8, 50, 64), 4, 64, RopePairing::kNeoX,
             Layout::kHeadMajor},
        // Patches of 4 bytes.
        Case{"few_columns", Shape(2, 70, 64), 1, 64},
        Case{"half_turns", Shape(2, 40, 128), 1, 64},
        Case{"quarter_turns", Shape(2, 40, 128), 1, 32},
        Case{"nothing_turns", Shape(2, 40, 128), 1, 0},
        Case{"wide", Shape(1, 24, 256), 1, 256},
        Case{"padded", Shape(2, 44, 128), 1, 128, RopePairing::kNeoX,
             Layout::kPadded},
        Case{"padded_fp32", Shape(3, 47, 9, Dtype::kFp32), 3, 6,
             RopePairing::kGptJ, Layout::kPadded},
        Case{"small", Shape(3, 5, 8), 3, 8},
        Case{"odd", Shape(3, 70, 24), 3, 20, RopePairing::kNeoX,
             Layout::kHeadMajor},
        Case{"odd_neighbours", Shape(4, 60, 80), 2, 80, RopePairing::kGptJ},
        Case{"one_token", Shape(2, 1, 128), 2, 128},
        Case{"whole_chunk", Shape(2, 256, 128), 2, 128}),
    NameOf);

// What the jobs of a plan have.
struct Seen {
  uint32_t raw_rows = 0;
  uint32_t patches = 0;
  int most_runs = 0;
  int most_high = 0;
};

Seen SeenIn(const BatchPlan& plan) {
  Seen seen;
  for (const StreamJob& job : plan.jobs()) {
    seen.raw_rows += job.raw_rows;
    seen.patches += job.base.patches + job.base1.patches + job.base2.patches;
    seen.most_runs = std::max(seen.most_runs, job.runs);
    seen.most_high = std::max(seen.most_high, job.used_high);
  }
  return seen;
}

// The number of high parts that are not zero.
int HighParts(const BatchPlan& plan, const BatchRef& batch) {
  const auto room = std::make_unique<ValuesRoom>();
  int count = 0;
  for (const StreamJob& job : plan.jobs()) {
    std::vector<int8_t> values(job.tile_bytes());
    EXPECT_TRUE(
        DecodeStream<true>(HostWarp(), batch, job, room.get(), values.data()));
    const ValueTile tile = TileOf(job, values.data());
    for (int row = 0; row < job.rows; ++row) {
      for (int band = 0; band < job.used_high; ++band) {
        const int8_t* high = tile.At(row, job.high_bands_at() + band);
        count += static_cast<int>(
            kBandBytes - std::count(high, high + kBandBytes, int8_t{0}));
      }
    }
  }
  return count;
}

TEST(JointStream, TheTestChunksHaveAllThatStreamsMayHave) {
  for (const int head_dim : {64, 128}) {
    SCOPED_TRACE(head_dim);
    const GpuTestChunk chunk =
        JointTestChunk(OptionsOf(Shape(2, 256, head_dim), head_dim), 1, 11);
    KvBuffer kv(chunk.header.shape, Layout::kTokenMajor);
    BatchPlan plan(chunk.image);
    ASSERT_TRUE(plan.Add(chunk.Request(Level::kBase2, chunk.All(),
                                       chunk.header.positions, kv.view()))
                    .ok());
    ASSERT_EQ(plan.jobs().size(), 4u);
    for (const StreamJob& job : plan.jobs()) {
      EXPECT_TRUE(job.in_blocks);
      EXPECT_EQ(job.levels, 3);
      EXPECT_EQ(job.patch_bytes, head_dim == 64 ? 4 : 5);
    }
    const Seen seen = SeenIn(plan);
    EXPECT_GT(seen.raw_rows, 0u);
    EXPECT_GT(seen.patches, 0u);
    EXPECT_GT(seen.most_runs, 2);
    EXPECT_EQ(seen.most_high, 1);
    EXPECT_GT(HighParts(plan, HostBatchOf(plan, nullptr)), 0);
  }
}

TEST(JointStream, WritesPages) {
  for (const int head_dim : {24, 128}) {
    const GpuTestChunk chunk =
        JointTestChunk(OptionsOf(Shape(2, 40, head_dim), head_dim), 1, 5);
    for (const Level level : kTransformLevels) {
      const absl::Status same = ComparePagesWithCpu(chunk, level);
      EXPECT_TRUE(same.ok()) << same;
    }
  }
}

// Rows of all tokens in place of symbols, where symbols would take more bytes.
TEST(JointStream, WritesStreamsOfRows) {
  const ChunkOptions options = OptionsOf(Shape(2, 40, 64), 64);
  auto calibration = JointTestChunk(options, 2, 1).calibration;
  KvBuffer kv(options.shape, Layout::kTokenMajor);
  std::mt19937 rng(1);
  kv.FillRandom(&rng);
  // So large that every token is raw, which takes more bytes than the rows.
  for (int layer = 0; layer < 2; ++layer) {
    for (int token = 0; token < options.shape.tokens; ++token) {
      kv.Set(layer, KvPart::kV, 1, token, 5, 1e4f);
    }
  }
  const GpuTestChunk chunk(options, calibration, kv.view());
  for (const Level level : kTransformLevels) {
    BatchPlan plan(chunk.image);
    ASSERT_TRUE(plan.Add(chunk.Request(level, chunk.All(),
                                       chunk.header.positions, kv.view()))
                    .ok());
    for (const StreamJob& job : plan.jobs()) EXPECT_EQ(job.levels, 0);
    const absl::Status same =
        CompareWithCpu(chunk, level, chunk.All(), Layout::kTokenMajor);
    EXPECT_TRUE(same.ok()) << same;
  }
}

// As in batch_plan_test.cc.
TEST(JointStream, DamagedStreamsEndAsOnTheCpu) {
  GpuTestChunk chunk = JointTestChunk(OptionsOf(Shape(2, 40, 64), 64), 1, 3);
  const std::vector<std::byte> good = chunk.object;
  const size_t begin = chunk.index->prefix_bytes();
  std::mt19937 rng(9);
  int failures = 0;
  for (int round = 0; round < 300; ++round) {
    chunk.object = good;
    for (int i = 0; i <= round % 8; ++i) {
      const size_t at = begin + rng() % (good.size() - begin);
      chunk.object[at] = static_cast<std::byte>(rng());
    }
    RepairStreamCrcs(absl::MakeSpan(chunk.object));
    const auto index = ObjectIndex::Parse(chunk.object, chunk.object.size());
    ASSERT_TRUE(index.ok());
    chunk.index.emplace(*index);
    KvBuffer kv(chunk.header.shape, Layout::kTokenMajor);
    for (const Level level : {Level::kArchive, Level::kBase2}) {
      const absl::Status by_cpu = chunk.DecodeOnCpu(
          level, chunk.All(), chunk.header.positions, kv.view());
      const absl::Status same =
          CompareWithCpu(chunk, level, chunk.All(), Layout::kTokenMajor);
      EXPECT_EQ(same.code(), by_cpu.code()) << same << by_cpu;
      if (!by_cpu.ok()) {
        ++failures;
        BatchPlan plan(chunk.image);
        absl::Status by_warp = plan.Add(chunk.Request(
            level, chunk.All(), chunk.header.positions, kv.view()));
        if (by_warp.ok()) by_warp = DecodeOnHost(plan);
        EXPECT_EQ(by_warp.code(), by_cpu.code()) << by_warp << by_cpu;
      }
    }
  }
  EXPECT_GT(failures, 20);
}

TEST(JointStream, RefusesACalibrationOfOtherStreams) {
  const ChunkOptions options = OptionsOf(Shape(2, 20, 64), 64);
  const GpuTestChunk chunk = JointTestChunk(options, 1, 3);
  const GpuTestChunk other = JointTestChunk(options, 2, 3);
  KvBuffer kv(options.shape, Layout::kTokenMajor);
  BatchPlan plan(other.image);
  EXPECT_EQ(plan.Add(chunk.Request(Level::kBase, chunk.All(),
                                   chunk.header.positions, kv.view()))
                .code(),
            absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace kdn::codec::cuda
