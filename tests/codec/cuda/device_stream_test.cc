#include "codec/cuda/device_stream.h"

#include <gtest/gtest.h>

#include <cstring>

#include "bench/cuda/synthetic_chunk.h"
#include "codec/cuda/host_batch.h"
#include "tests/codec/cuda/gpu_test_chunk.h"

namespace kdn::codec::cuda {
namespace {

constexpr Level kTransformLevels[] = {Level::kBase, Level::kBase1,
                                      Level::kBase2};

struct Case {
  const char* name;
  KvShape shape;
  int rotary_dim;
  RopePairing pairing = RopePairing::kNeoX;
  Layout layout = Layout::kTokenMajor;
  int components = 0;
};

std::string NameOf(const testing::TestParamInfo<Case>& info) {
  return info.param.name;
}

KvShape Shape(int layers, int heads, int tokens, int dim,
              Dtype dtype = Dtype::kBf16) {
  return {layers, heads, tokens, dim, dtype};
}

// Compares the code of a warp with the CPU's decoder: every byte, including the
// bytes between rows.
class DeviceStreamTest : public testing::TestWithParam<Case> {
 protected:
  static ChunkOptions Options() {
    ChunkOptions options;
    options.shape = GetParam().shape;
    options.rotary_dim = GetParam().rotary_dim;
    options.pairing = GetParam().pairing;
    options.levels = LevelSet::Of(Level::kBase2).WithRefined();
    return options;
  }

  static void ExpectSame(const GpuTestChunk& chunk, Level level,
                         const KvSlice& slice) {
    const absl::Status same =
        CompareWithCpu(chunk, level, slice, GetParam().layout);
    EXPECT_TRUE(same.ok()) << same;
  }
};

TEST_P(DeviceStreamTest, GivesTheBitsOfTheCpu) {
  for (const Coding coding :
       {Coding::kUncalibrated, Coding::kCalibrated, Coding::kNoise}) {
    const GpuTestChunk chunk(Options(), coding, 11, GetParam().components);
    for (const Level level : kTransformLevels) {
      SCOPED_TRACE(static_cast<int>(level));
      ExpectSame(chunk, level, chunk.All());
    }
  }
}

TEST_P(DeviceStreamTest, GivesTheBitsOfTheCpuInSlices) {
  const GpuTestChunk chunk(Options(), Coding::kCalibrated, 12,
                           GetParam().components);
  KvSlice slice = chunk.All();
  ++slice.layer_begin;
  if (slice.heads() > 1) ++slice.head_begin;
  ExpectSame(chunk, Level::kBase1, slice);
  slice = chunk.All();
  slice.layer_end = 1;
  if (slice.heads() > 1) --slice.head_end;
  ExpectSame(chunk, Level::kBase2, slice);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, DeviceStreamTest,
    testing::Values(
        Case{"llama", Shape(2, 2, 40, 128), 128},
        Case{"llama_fp16", Shape(2, 1, 17, 128, Dtype::kFp16), 128},
        Case{"llama_fp32", Shape(2, 1, 16, 128, Dtype::kFp32), 128},
        Case{"neighbours", Shape(2, 2, 33, 128), 128, RopePairing::kGptJ},
        Case{"few_neighbours", Shape(2, 1, 9, 64), 24, RopePairing::kGptJ},
        Case{"two_heads_a_stream", Shape(2, 4, 21, 64), 64, RopePairing::kNeoX,
             Layout::kHeadMajor},
        Case{"half_turns", Shape(2, 2, 20, 128), 64},
        Case{"quarter_turns", Shape(2, 2, 20, 128), 32},
        Case{"nothing_turns", Shape(2, 2, 20, 128), 0},
        Case{"wide", Shape(2, 1, 24, 256), 256},
        Case{"fewer_components", Shape(2, 2, 24, 128), 128, RopePairing::kNeoX,
             Layout::kTokenMajor, 80},
        Case{"padded", Shape(2, 2, 24, 128), 128, RopePairing::kNeoX,
             Layout::kPadded},
        Case{"padded_fp32", Shape(2, 3, 7, 9, Dtype::kFp32), 6,
             RopePairing::kGptJ, Layout::kPadded},
        Case{"small", Shape(2, 3, 5, 8), 8},
        Case{"odd", Shape(2, 3, 70, 24), 20, RopePairing::kNeoX,
             Layout::kHeadMajor},
        Case{"eighty", Shape(2, 2, 31, 80), 80},
        Case{"one_token", Shape(2, 2, 1, 128), 128},
        Case{"whole_chunk", Shape(2, 1, 256, 128), 128}),
    NameOf);

TEST(DeviceStream, TheTestChunksHaveRawRowsAndPatches) {
  ChunkOptions options;
  options.shape = Shape(1, 2, 256, 128);
  options.rotary_dim = 128;
  options.levels = LevelSet::Of(Level::kBase2).WithRefined();
  const GpuTestChunk chunk(options, Coding::kCalibrated, 11);
  KvBuffer kv(options.shape, Layout::kTokenMajor);
  BatchPlan plan(chunk.image);
  ASSERT_TRUE(plan.Add(chunk.Request(Level::kBase2, chunk.All(),
                                     chunk.header.positions, kv.view()))
                  .ok());
  uint32_t raw = 0;
  uint32_t patches = 0;
  for (const StreamJob& job : plan.jobs()) {
    EXPECT_TRUE(job.in_blocks);
    EXPECT_EQ(job.levels, 3);
    raw += job.raw_rows;
    patches += job.base.patches + job.base1.patches + job.base2.patches;
  }
  EXPECT_GT(raw, 0u);
  EXPECT_GT(patches, 0u);
}

// The chunks that gpu_codec_bench decodes on a GPU.
TEST(DeviceStream, GivesTheBitsOfTheBenchmarksChunks) {
  for (const bool calibrated : {true, false}) {
    const bench::SyntheticChunk chunk =
        std::move(bench::MakeChunks(1, calibrated).front());
    const auto image = std::make_shared<CalibrationImage>(chunk.calibration);
    const KvShape& shape = chunk.index->header().shape;
    KvBuffer decoded(shape, Layout::kTokenMajor);
    BatchPlan plan(image);
    ASSERT_TRUE(
        plan.Add({.index = &*chunk.index,
                  .object = chunk.object,
                  .level = Level::kBase,
                  .slice = {0, 1, 0, shape.kv_heads},
                  .positions = chunk.wanted,
                  .places = StridedPlaces{decoded.view().base(),
                                          KvStrides::TokenMajor(shape)}})
            .ok());
    // About as many bits as for the chunks of a calibrated model.
    const double bits = 16.0 * static_cast<double>(plan.bytes().size()) /
                        static_cast<double>(shape.bytes());
    EXPECT_GT(bits, 1.2) << calibrated;
    EXPECT_LT(bits, 2.5) << calibrated;
    ASSERT_TRUE(DecodeOnHost(plan).ok());
    const auto expected = bench::DecodeOnCpu(chunk, Level::kBase);
    EXPECT_EQ(
        std::memcmp(expected.data(), decoded.view().base(), expected.size()),
        0);
  }
}

TEST(DeviceStream, WritesPages) {
  ChunkOptions options;
  options.shape = Shape(2, 2, 40, 128);
  options.rotary_dim = 128;
  const GpuTestChunk chunk(options, Coding::kCalibrated, 5);
  const absl::Status same = ComparePagesWithCpu(chunk, Level::kBase1);
  EXPECT_TRUE(same.ok()) << same;
}

}  // namespace
}  // namespace kdn::codec::cuda
