#include "codec/cuda/gpu_decoder.h"

#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/codec/cuda/gpu_test_chunk.h"

namespace kdn::codec::cuda {
namespace {

using testing::HasSubstr;

ChunkOptions Options(const KvShape& shape, RopePairing pairing) {
  ChunkOptions options;
  options.shape = shape;
  options.rotary_dim = shape.head_dim / 2 * 2;
  options.pairing = pairing;
  options.levels = LevelSet::Of(Level::kBase2).WithRefined();
  return options;
}

// Runs where there is a GPU. Skips elsewhere, and shows the error.
class GpuDecoderTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!CheckGpu().ok()) GTEST_SKIP() << CheckGpu();
    ASSERT_EQ(cudaStreamCreate(&stream_), cudaSuccess);
  }
  void TearDown() override {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  absl::Status Decode(const GpuTestChunk& chunk, const ChunkRequest& request,
                      const GpuOptions& options) {
    auto plan = std::make_shared<BatchPlan>(chunk.image);
    if (absl::Status s = plan->Add(request); !s.ok()) return s;
    const auto calibration = GpuCalibration::UploadSync(chunk.image, stream_);
    if (!calibration.ok()) return calibration.status();
    const auto batch =
        GpuBatch::UploadAsync(*calibration, plan, options, stream_);
    if (!batch.ok()) return batch.status();
    if (absl::Status s = (*batch)->DecodeAsync(); !s.ok()) return s;
    return (*batch)->FinishSync();
  }

  void ExpectSame(const GpuTestChunk& chunk, Level level, Layout layout,
                  const GpuOptions& options) {
    const auto positions = chunk.PositionsFrom(999);
    KvBuffer expected(chunk.header.shape, layout);
    KvBuffer decoded(chunk.header.shape, layout);
    ASSERT_TRUE(
        chunk.DecodeOnCpu(level, chunk.All(), positions, expected.view()).ok());
    auto memory = DeviceMemory::AllocateAsync(decoded.bytes().size(), stream_);
    ASSERT_TRUE(memory.ok()) << memory.status();
    ASSERT_TRUE(memory
                    ->CopyInAsync(0, decoded.bytes().data(),
                                  decoded.bytes().size(), stream_)
                    .ok());
    const absl::Status status =
        Decode(chunk,
               chunk.Request(level, chunk.All(), positions,
                             MutableKvView(memory->data(), chunk.header.shape,
                                           decoded.view().strides())),
               options);
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_TRUE(memory
                    ->CopyOutSync(0, decoded.view().base(),
                                  decoded.bytes().size(), stream_)
                    .ok());
    EXPECT_EQ(expected.bytes(), decoded.bytes());
  }

  GpuStream stream_ = nullptr;
};

TEST(GpuDecoder, SaysWhyThereIsNoGpu) {
  const absl::Status status = CheckGpu();
  if (status.ok()) GTEST_SKIP() << "this machine has a GPU";
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("looking for a GPU"));
  const GpuTestChunk chunk(
      Options({1, 1, 8, 64, Dtype::kBf16}, RopePairing::kNeoX),
      Coding::kUncalibrated, 1);
  EXPECT_EQ(GpuCalibration::UploadSync(chunk.image, nullptr).status(), status);
  EXPECT_EQ(GpuBatch::UploadAsync(nullptr, nullptr, {}, nullptr).status(),
            status);
}

TEST_F(GpuDecoderTest, GivesTheBitsOfTheCpu) {
  const KvShape shapes[] = {
      {2, 2, 256, 128, Dtype::kBf16}, {2, 4, 100, 64, Dtype::kFp16},
      {2, 1, 37, 128, Dtype::kFp32},  {2, 1, 65, 256, Dtype::kBf16},
      {2, 3, 29, 24, Dtype::kBf16},   {2, 3, 7, 9, Dtype::kFp32}};
  for (const KvShape& shape : shapes) {
    for (const RopePairing pairing : {RopePairing::kNeoX, RopePairing::kGptJ}) {
      for (const Coding coding :
           {Coding::kUncalibrated, Coding::kCalibrated, Coding::kNoise}) {
        const GpuTestChunk chunk(Options(shape, pairing), coding, 5);
        for (const Level level : {Level::kBase, Level::kBase1, Level::kBase2}) {
          // All streams at once, and one after the other.
          for (const uint64_t values_bytes : {1 << 30, 1}) {
            SCOPED_TRACE(testing::Message()
                         << shape.head_dim << " level "
                         << static_cast<int>(level) << " " << values_bytes);
            ExpectSame(chunk, level, Layout::kTokenMajor, {values_bytes});
            ExpectSame(chunk, level, Layout::kPadded, {values_bytes});
          }
        }
      }
    }
  }
}

TEST_F(GpuDecoderTest, GivesTheBitsOfTheCpuForJointStreams) {
  struct {
    KvShape shape;
    int joint_heads;
  } const cases[] = {{{2, 4, 256, 128, Dtype::kBf16}, 2},
                     {{2, 4, 100, 64, Dtype::kFp16}, 2},
                     {{2, 1, 37, 128, Dtype::kFp32}, 1},
                     {{2, 3, 70, 24, Dtype::kBf16}, 3}};
  for (const auto& [shape, joint_heads] : cases) {
    for (const RopePairing pairing : {RopePairing::kNeoX, RopePairing::kGptJ}) {
      ChunkOptions options = Options(shape, pairing);
      options.levels = options.levels.With(Level::kArchive);
      const GpuTestChunk chunk = JointTestChunk(options, joint_heads, 5);
      for (const Level level :
           {Level::kArchive, Level::kBase, Level::kBase1, Level::kBase2}) {
        for (const uint64_t values_bytes : {1 << 30, 1}) {
          SCOPED_TRACE(testing::Message()
                       << shape.head_dim << " level " << static_cast<int>(level)
                       << " " << values_bytes);
          ExpectSame(chunk, level, Layout::kTokenMajor, {values_bytes});
          ExpectSame(chunk, level, Layout::kPadded, {values_bytes});
        }
      }
    }
  }
}

TEST_F(GpuDecoderTest, ReportsDamagedStreams) {
  const KvShape shape{2, 2, 64, 128, Dtype::kBf16};
  GpuTestChunk chunk(Options(shape, RopePairing::kNeoX), Coding::kCalibrated,
                     6);
  auto memory = DeviceMemory::AllocateAsync(shape.bytes(), stream_);
  ASSERT_TRUE(memory.ok());
  const MutableKvView kv(memory->data(), shape, KvStrides::TokenMajor(shape));
  const StreamEntry entry =
      chunk.index->Entry({Level::kBase2, 1, KvPart::kK, 1});
  chunk.object[entry.offset + entry.bytes - 1] ^= std::byte{0x55};
  RepairStreamCrcs(absl::MakeSpan(chunk.object));
  chunk.index.emplace(*ObjectIndex::Parse(chunk.object, chunk.object.size()));
  const absl::Status status = Decode(
      chunk,
      chunk.Request(Level::kBase2, chunk.All(), chunk.header.positions, kv),
      {});
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("layer 1 K"));
}

}  // namespace
}  // namespace kdn::codec::cuda
