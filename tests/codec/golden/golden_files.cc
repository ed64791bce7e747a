#include "tests/codec/golden/golden_files.h"

#include <random>
#include <utility>

namespace kdn::codec {
namespace {

constexpr Calibration::Geometry kCalibrated = {
    .layers = 1, .kv_heads = 4, .head_dim = 16};
constexpr char kCalibration[] = "four-heads-of-16";

// Give streams raw tokens and patches.
std::vector<Outlier> Outliers(const KvShape& shape) {
  std::vector<Outlier> outliers = FarRow(shape);
  for (KvPart part : {KvPart::kK, KvPart::kV}) {
    outliers.push_back({part, 1, 9, 3, -7.5f});
    outliers.push_back({part, shape.kv_heads - 1, 11, 5, 6.0f});
  }
  return outliers;
}

GoldenChunk Chunk(std::string name, const ChunkOptions& options) {
  return {.name = std::move(name), .header = HeaderOf(options)};
}

// Every level, with raw tokens and patches.
GoldenChunk Bf16() {
  ChunkOptions options;
  options.shape = {2, 2, 24, 16, Dtype::kBf16};
  options.rotary_dim = 16;
  options.first_position = 0;
  GoldenChunk chunk = Chunk("bf16", options);
  chunk.outliers = Outliers(options.shape);
  return chunk;
}

GoldenChunk Fp16Yarn() {
  ChunkOptions options;
  options.shape = {1, 3, 33, 20, Dtype::kFp16};
  options.pairing = RopePairing::kGptJ;
  options.rotary_dim = 12;
  options.attention_factor = 1.25;
  GoldenChunk chunk = Chunk("fp16-gptj-yarn", options);
  chunk.header.rope.scaling = RopeScaling::kYarn;
  chunk.header.rope.factor = 4.0;
  chunk.header.rope.original_max_position = 4096;
  return chunk;
}

GoldenChunk Fp32Llama3() {
  ChunkOptions options;
  options.shape = {1, 2, 24, 32, Dtype::kFp32};
  options.rotary_dim = 32;
  options.first_position = 7000;
  GoldenChunk chunk = Chunk("fp32-llama3", options);
  chunk.header.rope.theta = 500000.0;
  chunk.header.rope.scaling = RopeScaling::kLlama3;
  chunk.header.rope.factor = 8.0;
  chunk.header.rope.original_max_position = 8192;
  return chunk;
}

GoldenChunk Calibrated(std::string name, Dtype dtype, int rotary_dim) {
  ChunkOptions options;
  options.shape = {1, 4, 24, 16, dtype};
  options.rotary_dim = rotary_dim;
  options.levels = LevelSet::Of(Level::kBase2).WithRefined();
  GoldenChunk chunk = Chunk(std::move(name), options);
  chunk.outliers = Outliers(options.shape);
  chunk.calibration = kCalibration;
  return chunk;
}

// With so few tokens, coding would take more bytes than rows: streams of base
// have rows, and streams of base+1 and base+2 have nothing.
GoldenChunk FewTokens() {
  ChunkOptions options;
  options.shape = {1, 2, 3, 8, Dtype::kBf16};
  return Chunk("few-tokens", options);
}

GoldenChunk OneLevel(std::string name, Level level) {
  ChunkOptions options;
  options.shape = {1, 2, 24, 16, Dtype::kBf16};
  options.rotary_dim = 8;
  options.levels = LevelSet::Of(level).WithRefined();
  GoldenChunk chunk = Chunk(std::move(name), options);
  chunk.header.rope.scaling = RopeScaling::kLinear;
  chunk.header.rope.factor = 2.0;
  return chunk;
}

// A chunk that follows another one in its chain, and whose variant is an edit.
GoldenChunk Chained() {
  GoldenChunk chunk = OneLevel("chained-edited", Level::kInt8);
  chunk.header.identity.condition = KeyOf(chunk.header);
  chunk.header.depth = 18;
  chunk.header.identity.variant = "dropped";
  return chunk;
}

// A chunk with sections that no version knows.
GoldenChunk WithSections() {
  GoldenChunk chunk = OneLevel("sections", Level::kInt8);
  chunk.header.sections = {
      {1000, false, std::vector<std::byte>(21, std::byte{6})},
      {1001, false, {}}};
  return chunk;
}

// Another RoPE in one layer, and rows of V longer than rows of K.
GoldenChunk Unsupported() {
  GoldenChunk chunk = OneLevel("layers-and-parts-differ", Level::kInt8);
  ObjectHeader& header = chunk.header;
  header.shape.layers = 4;
  header.shape.v_head_dim = 24;
  header.layer_ropes.assign(4, header.rope);
  header.layer_ropes[2].theta = 1e6;
  return chunk;
}

}  // namespace

GoldenFiles FilesOfVersion3() {
  return {
      .calibrations = {{kCalibration, PartsOf(kCalibrated)}},
      .chunks = {Bf16(), Fp16Yarn(), Fp32Llama3(),
                 Calibrated("calibrated-bf16", Dtype::kBf16, 16),
                 Calibrated("calibrated-fp16-no-rope", Dtype::kFp16, 0),
                 Calibrated("calibrated-fp32", Dtype::kFp32, 8), FewTokens(),
                 OneLevel("base-only", Level::kBase),
                 OneLevel("base1", Level::kBase1), Chained(), WithSections()},
      .unsupported = {Unsupported()}};
}

std::vector<Outlier> FarRow(const KvShape& shape) {
  std::vector<Outlier> outliers;
  for (KvPart part : {KvPart::kK, KvPart::kV}) {
    for (int dim = 0; dim < shape.head_dim; ++dim) {
      outliers.push_back({part, 0, 0, dim, dim % 2 == 0 ? 60.0f : -55.0f});
    }
  }
  return outliers;
}

KvBuffer KvOf(const GoldenChunk& chunk) {
  std::mt19937 rng(20);
  KvBuffer kv(chunk.header.shape, Layout::kTokenMajor);
  kv.FillRandom(&rng);
  for (const Outlier& at : chunk.outliers) {
    kv.Set(0, at.part, at.head, at.token, at.dim, at.value);
  }
  return kv;
}

}  // namespace kdn::codec
