// Writes golden files in the format version of this build's encoder into an
// empty folder. A person runs the program once for each version of the format
// (README.md in this folder). No test and no CI run starts it.

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "codec/calibration/calibration_format.h"
#include "kv/check.h"
#include "tests/codec/golden/golden_digests.h"
#include "tests/codec/test_calibration.h"
#include "tests/codec/test_chunk.h"

namespace kdn::codec {
namespace {

constexpr Calibration::Geometry kCalibrated = {
    .layers = 1, .kv_heads = 4, .head_dim = 16};
// The fingerprint in HeaderOf's headers.
ModelFingerprint TestModel() {
  return HeaderOf(ChunkOptions()).identity.fingerprint;
}

struct GoldenChunk {
  std::string name;
  ObjectHeader header;
  // Whether some rows and some elements lie far from the others, so that
  // streams have raw tokens and patches.
  bool outliers = false;
  bool calibrated = false;
};

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
  chunk.outliers = true;
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
  chunk.outliers = true;
  chunk.calibrated = true;
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

// Another RoPE in one layer, and rows of V longer than rows of K. No encoder
// supports this header.
ObjectHeader Unsupported() {
  ObjectHeader header = OneLevel("", Level::kInt8).header;
  header.shape.layers = 4;
  header.shape.v_head_dim = 24;
  header.layer_ropes.assign(4, header.rope);
  header.layer_ropes[2].theta = 1e6;
  return header;
}

std::vector<GoldenChunk> GoldenChunks() {
  return {Bf16(),
          Fp16Yarn(),
          Fp32Llama3(),
          Calibrated("calibrated-bf16", Dtype::kBf16, 16),
          Calibrated("calibrated-fp16-no-rope", Dtype::kFp16, 0),
          Calibrated("calibrated-fp32", Dtype::kFp32, 8),
          FewTokens(),
          OneLevel("base-only", Level::kBase),
          OneLevel("base1", Level::kBase1),
          Chained(),
          WithSections()};
}

KvBuffer KvOf(const GoldenChunk& chunk) {
  const KvShape& shape = chunk.header.shape;
  std::mt19937 rng(20);
  KvBuffer kv(shape, Layout::kTokenMajor);
  kv.FillRandom(&rng);
  if (!chunk.outliers) return kv;
  for (KvPart part : {KvPart::kK, KvPart::kV}) {
    for (int dim = 0; dim < shape.head_dim; ++dim) {
      kv.Set(0, part, 0, 0, dim, dim % 2 == 0 ? 60.0f : -55.0f);
    }
    kv.Set(0, part, 1, 9, 3, -7.5f);
    kv.Set(0, part, shape.kv_heads - 1, 11, 5, 6.0f);
  }
  return kv;
}

StoredCalibration StoredOf(const CalibrationParts& parts) {
  StoredCalibration stored;
  stored.model = TestModel();
  stored.geometry = parts.geometry;
  for (const RansTable& table : parts.tables) {
    auto& frequencies = stored.tables.emplace_back();
    for (size_t symbol = 0; symbol < kRansSymbols; ++symbol) {
      frequencies[symbol] =
          static_cast<uint16_t>(table.frequency(static_cast<uint8_t>(symbol)));
    }
  }
  for (const StreamTransform& stream : parts.streams) {
    StoredTransform& transform = stored.streams.emplace_back();
    transform.mean = stream.mean;
    transform.scale = stream.scale;
    transform.classes[0].bands = stream.classes[0].bands;
    for (int d = 0; d < stream.dim(); ++d) {
      for (int c = 0; c < stream.components(); ++c) {
        transform.synthesis.push_back(stream.synthesis.At(d, c));
      }
    }
  }
  return stored;
}

void WriteFile(const std::string& path, absl::Span<const std::byte> bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  KDN_CHECK(file.good(), "the file can be written");
}

void WriteAll(const std::string& folder) {
  const std::vector<std::byte> file =
      WriteCalibration(StoredOf(PartsOf(kCalibrated)));
  WriteFile(folder + "/four-heads-of-16.kdncal", file);
  const auto calibration = ParseCalibration(file);
  KDN_CHECK(calibration.ok(), "the calibration can be used");
  CalibrationSet set;
  set.Add(*calibration);
  std::ofstream digests(folder + "/digests");
  for (const GoldenChunk& chunk : GoldenChunks()) {
    const auto object = EncodeWith(
        chunk.calibrated
            ? *calibration
            : Calibration::Uncalibrated(GeometryOf(chunk.header.shape)),
        chunk.header, KvOf(chunk).view());
    WriteFile(folder + "/" + chunk.name + ".kdnobj", object);
    for (const std::string& line : DigestsOf(object, &set, Isa::kScalar)) {
      digests << chunk.name << " " << line << "\n";
    }
  }
  const auto unsupported = ObjectOfZeros(Unsupported());
  WriteFile(folder + "/layers-and-parts-differ.kdnobj", unsupported);
  for (const std::string& line : DigestsOf(unsupported, &set, Isa::kScalar)) {
    digests << "layers-and-parts-differ " << line << "\n";
  }
  KDN_CHECK(digests.good(), "the digests can be written");
}

}  // namespace
}  // namespace kdn::codec

int main(int argc, char** argv) {
  if (argc != 2 || !std::filesystem::is_directory(argv[1]) ||
      !std::filesystem::is_empty(argv[1])) {
    std::fprintf(stderr, "usage: codec_write_golden EMPTY-FOLDER\n");
    return 2;
  }
  kdn::codec::WriteAll(argv[1]);
  return 0;
}
