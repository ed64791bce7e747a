// The files of version 4: K and V share streams.

#include <numeric>
#include <utility>

#include "tests/codec/golden/golden_files.h"

namespace kdn::codec {
namespace {

// Calibrations: streams of one head, streams of two heads with fewer dimensions
// than components, and a stream with 144 components and 128 high parts.
constexpr char kOneHead[] = "one-head-a-stream";
constexpr char kTwoHeads[] = "two-heads-a-stream";
constexpr char kManyColumns[] = "columns-272";
constexpr int kWideBands = 8;

std::vector<GoldenCalibration> Calibrations() {
  return {{kOneHead, JointParts({2, 2, 16}, /*joint_heads=*/1)},
          {kTwoHeads, JointParts({1, 4, 10}, /*joint_heads=*/2)},
          {kManyColumns,
           JointParts({1, 1, 68}, /*joint_heads=*/1, /*id=*/2, kWideBands)}};
}

GoldenChunk OfOneHead(std::string name, Dtype dtype, int tokens,
                      LevelSet levels) {
  ChunkOptions options;
  options.shape = {2, 2, tokens, 16, dtype};
  options.rotary_dim = 16;
  options.levels = levels;
  return {.name = std::move(name),
          .header = HeaderOf(options),
          .calibration = kOneHead};
}

GoldenChunk OfTwoHeads(std::string name, Dtype dtype, int tokens,
                       LevelSet levels, int rotary_dim) {
  ChunkOptions options;
  options.shape = {1, 4, tokens, 10, dtype};
  options.pairing = RopePairing::kGptJ;
  options.rotary_dim = rotary_dim;
  options.levels = levels;
  return {.name = std::move(name),
          .header = HeaderOf(options),
          .calibration = kTwoHeads};
}

GoldenChunk OfManyColumns(std::string name, int tokens, LevelSet levels) {
  ChunkOptions options;
  options.shape = {1, 1, tokens, 68, Dtype::kBf16};
  options.rotary_dim = 68;
  options.levels = levels;
  return {.name = std::move(name),
          .header = HeaderOf(options),
          .calibration = kManyColumns};
}

LevelSet TransformCoded() {
  return LevelSet::Of(Level::kBase2).WithRefined().With(Level::kArchive);
}

// Every level, a raw token at position 0, and high parts of K.
GoldenChunk Bf16() {
  GoldenChunk chunk = OfOneHead("bf16", Dtype::kBf16, 24, LevelSet::All());
  std::iota(chunk.header.positions.begin(), chunk.header.positions.end(), 0);
  chunk.outliers = FarRow(chunk.header.shape);
  chunk.outliers.push_back({KvPart::kK, 0, 9, 3, 24.0f});
  chunk.outliers.push_back({KvPart::kK, 0, 10, 5, -26.0f});
  chunk.outliers.push_back({KvPart::kK, 1, 11, 2, 27.0f});
  chunk.outliers.push_back({KvPart::kV, 1, 12, 6, 9.0f});
  return chunk;
}

GoldenChunk Fp16Yarn() {
  GoldenChunk chunk = OfTwoHeads("fp16-gptj-yarn", Dtype::kFp16, 33,
                                 LevelSet::All(), /*rotary_dim=*/8);
  chunk.header.rope.scaling = RopeScaling::kYarn;
  chunk.header.rope.factor = 4.0;
  chunk.header.rope.attention_factor = 1.25;
  chunk.header.rope.original_max_position = 4096;
  chunk.outliers = FarRow(chunk.header.shape);
  chunk.outliers.push_back({KvPart::kK, 0, 20, 9, 30.0f});
  chunk.outliers.push_back({KvPart::kK, 2, 21, 9, -28.0f});
  return chunk;
}

GoldenChunk Fp32Llama3() {
  GoldenChunk chunk =
      OfOneHead("fp32-llama3", Dtype::kFp32, 12, LevelSet::All());
  chunk.header.rope.theta = 500000.0;
  chunk.header.rope.scaling = RopeScaling::kLlama3;
  chunk.header.rope.factor = 8.0;
  chunk.header.rope.original_max_position = 8192;
  return chunk;
}

// A high part of archive has a patch, with a column number above 255. The other
// outliers make raw tokens, and high parts that need no patch.
GoldenChunk ManyColumns() {
  GoldenChunk chunk = OfManyColumns("many-columns", 20, TransformCoded());
  chunk.outliers = {
      {KvPart::kV, 0, 5, 54, 36.0f},  {KvPart::kV, 0, 6, 45, 36.0f},
      {KvPart::kV, 0, 7, 50, -38.0f}, {KvPart::kV, 0, 8, 66, 40.0f},
      {KvPart::kV, 0, 10, 57, 15.0f}, {KvPart::kV, 0, 11, 51, 16.0f}};
  return chunk;
}

// A chunk that follows another one in its chain, with a section that no version
// knows.
GoldenChunk Chained() {
  GoldenChunk chunk = OfOneHead("chained-sections", Dtype::kFp16, 9,
                                LevelSet::Of(Level::kArchive));
  chunk.header.identity.condition = KeyOf(chunk.header);
  chunk.header.depth = 18;
  chunk.header.sections = {
      {1000, false, std::vector<std::byte>(21, std::byte{6})}};
  return chunk;
}

}  // namespace

GoldenFiles FilesOfVersion4() {
  return {
      .calibrations = Calibrations(),
      .chunks = {
          Bf16(), Fp16Yarn(), Fp32Llama3(),
          OfTwoHeads("fp32-no-rope", Dtype::kFp32, 20, TransformCoded(),
                     /*rotary_dim=*/0),
          ManyColumns(),
          // Fewer than 8 tokens. The first is coded; in the second, coding
          // would take more bytes than rows.
          OfManyColumns("five-tokens", 5, TransformCoded()),
          OfOneHead("few-tokens", Dtype::kBf16, 2, TransformCoded()),
          OfTwoHeads("archive-only", Dtype::kBf16, 70,
                     LevelSet::Of(Level::kArchive), /*rotary_dim=*/10),
          OfOneHead("base-only", Dtype::kFp16, 16, LevelSet::Of(Level::kBase)),
          Chained()}};
}

}  // namespace kdn::codec
