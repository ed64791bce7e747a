#include "codec/cuda/batch_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bench/cuda/synthetic_kv.h"
#include "codec/cuda/host_batch.h"
#include "tests/codec/cuda/gpu_test_chunk.h"

namespace kdn::codec::cuda {
namespace {

using testing::HasSubstr;

ChunkOptions Options() {
  ChunkOptions options;
  options.shape = {.layers = 2,
                   .kv_heads = 2,
                   .tokens = 20,
                   .head_dim = 128,
                   .dtype = Dtype::kBf16};
  options.rotary_dim = 128;
  options.levels = kApartLevels;
  return options;
}

class BatchPlanTest : public testing::Test {
 protected:
  BatchPlanTest()
      : chunk_(Options(), Coding::kCalibrated, 3),
        kv_(chunk_.header.shape, Layout::kTokenMajor),
        plan_(chunk_.image) {}

  ChunkRequest Request() {
    return chunk_.Request(Level::kBase2, chunk_.All(), chunk_.header.positions,
                          kv_.view());
  }
  absl::StatusCode CodeOf(const ChunkRequest& request) {
    const absl::StatusCode code = plan_.Add(request).code();
    // A request that fails adds nothing.
    EXPECT_TRUE(code == absl::StatusCode::kOk || plan_.jobs().empty());
    EXPECT_TRUE(code == absl::StatusCode::kOk || plan_.rope().empty());
    EXPECT_TRUE(code == absl::StatusCode::kOk ||
                plan_.bytes() == std::vector<std::byte>(kBytesBehind));
    return code;
  }

  GpuTestChunk chunk_;
  KvBuffer kv_;
  BatchPlan plan_;
};

TEST_F(BatchPlanTest, RefusesRequestsThatContradictThemselves) {
  const auto invalid = absl::StatusCode::kInvalidArgument;
  ChunkRequest request = Request();
  request.level = Level::kLossless;
  EXPECT_EQ(CodeOf(request), invalid);
  request = Request();
  request.slice.layer_end = 3;
  EXPECT_EQ(CodeOf(request), invalid);
  request = Request();
  request.slice.head_begin = 2;
  EXPECT_EQ(CodeOf(request), invalid);
  request = Request();
  request.positions.remove_suffix(1);
  EXPECT_EQ(CodeOf(request), invalid);
  request = Request();
  const std::vector<int32_t> negative = chunk_.PositionsFrom(-1);
  request.positions = negative;
  EXPECT_EQ(CodeOf(request), invalid);
}

TEST_F(BatchPlanTest, RefusesBlockTablesThatDoNotFit) {
  std::byte* const base = kv_.view().base();
  const KvPages good{.keys = {base, base},
                     .values = {base, base},
                     .block_tokens = 16,
                     .blocks = 4,
                     .block_table = {3, 1},
                     .first_token = 12};
  const auto code_of = [&](const KvPages& pages) {
    ChunkRequest request = Request();
    request.places = pages;
    return CodeOf(request);
  };
  const auto invalid = absl::StatusCode::kInvalidArgument;
  KvPages pages = good;
  pages.first_token = 13;
  EXPECT_EQ(code_of(pages), invalid);
  pages = good;
  pages.first_token = -1;
  EXPECT_EQ(code_of(pages), invalid);
  pages = good;
  pages.block_table[1] = 4;
  EXPECT_EQ(code_of(pages), invalid);
  pages = good;
  pages.block_tokens = 0;
  EXPECT_EQ(code_of(pages), invalid);
  pages = good;
  pages.values.pop_back();
  EXPECT_EQ(code_of(pages), invalid);
  EXPECT_EQ(code_of(good), absl::StatusCode::kOk);
}

TEST_F(BatchPlanTest, RefusesAnotherCalibration) {
  BatchPlan other(std::make_shared<CalibrationImage>(
      bench::SyntheticCalibration(GeometryOf(chunk_.header.shape), 4)));
  EXPECT_EQ(other.Add(Request()).code(), absl::StatusCode::kFailedPrecondition);
  BatchPlan uncalibrated(std::make_shared<CalibrationImage>(
      Calibration::Uncalibrated(GeometryOf(chunk_.header.shape))));
  EXPECT_EQ(uncalibrated.Add(Request()).code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(BatchPlanTest, RefusesModelsThatNoDecoderSupports) {
  ObjectHeader header = chunk_.header;
  header.levels = LevelSet::Of(Level::kInt8);
  header.calibration = CalibrationId();
  header.shape.v_head_dim = 64;
  const std::vector<std::byte> object = ObjectOfZeros(header);
  const auto index = ObjectIndex::Parse(object, object.size());
  ASSERT_TRUE(index.ok()) << index.status();
  ChunkRequest request = Request();
  request.index = &*index;
  EXPECT_EQ(CodeOf(request), absl::StatusCode::kUnimplemented);
}

TEST_F(BatchPlanTest, NamesADamagedStream) {
  const StreamEntry& entry =
      chunk_.index->Entry({Level::kBase1, 1, KvPart::kV, 1});
  chunk_.object[entry.offset + entry.bytes / 2] ^= std::byte{1};
  const absl::Status added = plan_.Add(Request());
  EXPECT_EQ(added.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(added.message()),
              HasSubstr("layer 1 V head group 1"));
  EXPECT_TRUE(plan_.jobs().empty());
}

// Adds several chunks, one of which fails.
TEST_F(BatchPlanTest, HoldsManyChunks) {
  KvBuffer more(chunk_.header.shape, Layout::kHeadMajor);
  KvBuffer expected(chunk_.header.shape, Layout::kTokenMajor);
  const auto positions = chunk_.PositionsFrom(77);
  ASSERT_TRUE(plan_.Add(Request()).ok());
  ChunkRequest bad = Request();
  bad.object.remove_suffix(1);
  EXPECT_EQ(plan_.Add(bad).code(), absl::StatusCode::kDataLoss);
  ASSERT_TRUE(plan_
                  .Add(chunk_.Request(Level::kBase, chunk_.All(), positions,
                                      more.view()))
                  .ok());
  EXPECT_EQ(plan_.jobs().size(), 16u);
  ASSERT_TRUE(DecodeOnHost(plan_).ok());
  ASSERT_TRUE(chunk_
                  .DecodeOnCpu(Level::kBase2, chunk_.All(),
                               chunk_.header.positions, expected.view())
                  .ok());
  EXPECT_TRUE(SameElements(expected.view(), kv_.view()));
  ASSERT_TRUE(
      chunk_.DecodeOnCpu(Level::kBase, chunk_.All(), positions, expected.view())
          .ok());
  EXPECT_TRUE(SameElements(expected.view(), more.view()));
}

// Damaged bytes with corrected checksums: the status is the same as on the CPU,
// and so are the rows when the status is OK. AddressSanitizer finds accesses
// outside the memory.
TEST_F(BatchPlanTest, DamagedStreamsEndAsOnTheCpu) {
  std::mt19937 rng(9);
  const std::vector<std::byte> good = chunk_.object;
  const size_t begin = chunk_.index->prefix_bytes();
  int failures = 0;
  for (int round = 0; round < 300; ++round) {
    chunk_.object = good;
    for (int i = 0; i <= round % 8; ++i) {
      const size_t at = begin + rng() % (good.size() - begin);
      chunk_.object[at] = static_cast<std::byte>(rng());
    }
    RepairStreamCrcs(absl::MakeSpan(chunk_.object));
    const auto index = ObjectIndex::Parse(chunk_.object, chunk_.object.size());
    ASSERT_TRUE(index.ok());
    chunk_.index.emplace(*index);
    KvBuffer expected(chunk_.header.shape, Layout::kTokenMajor);
    KvBuffer decoded(chunk_.header.shape, Layout::kTokenMajor);
    const absl::Status by_cpu = chunk_.DecodeOnCpu(
        Level::kBase2, chunk_.All(), chunk_.header.positions, expected.view());
    BatchPlan plan(chunk_.image);
    absl::Status by_warp = plan.Add(chunk_.Request(
        Level::kBase2, chunk_.All(), chunk_.header.positions, decoded.view()));
    if (by_warp.ok()) by_warp = DecodeOnHost(plan);
    EXPECT_EQ(by_warp.code(), by_cpu.code()) << by_warp << by_cpu;
    if (by_cpu.ok()) {
      EXPECT_EQ(expected.bytes(), decoded.bytes());
    } else {
      ++failures;
    }
  }
  EXPECT_GT(failures, 20);
}

}  // namespace
}  // namespace kdn::codec::cuda
