#include "tests/codec/cuda/gpu_test_chunk.h"

#include <cstring>
#include <numeric>
#include <utility>

#include "bench/cuda/synthetic_kv.h"
#include "codec/cuda/host_batch.h"
#include "kv/check.h"
#include "tests/codec/test_calibration.h"

namespace kdn::codec::cuda {

GpuTestChunk::GpuTestChunk(const ChunkOptions& options, Coding coding,
                           uint32_t seed, int components)
    : header(HeaderOf(options)) {
  const Calibration::Geometry geometry = GeometryOf(options.shape);
  calibration = coding == Coding::kUncalibrated
                    ? Calibration::Uncalibrated(geometry)
                    : bench::SyntheticCalibration(geometry, seed, components);
  image = std::make_shared<CalibrationImage>(calibration);
  std::mt19937 rng(seed);
  KvBuffer kv(options.shape, Layout::kTokenMajor);
  if (coding == Coding::kNoise) {
    kv.FillRandom(&rng);
  } else {
    bench::FillFitting(*calibration, header.rope, header.positions, &rng,
                       kv.view());
  }
  Encode(kv.view());
}

GpuTestChunk::GpuTestChunk(const ChunkOptions& options,
                           std::shared_ptr<const Calibration> made_for,
                           const KvView& kv)
    : header(HeaderOf(options)),
      calibration(std::move(made_for)),
      image(std::make_shared<CalibrationImage>(calibration)) {
  Encode(kv);
}

void GpuTestChunk::Encode(const KvView& kv) {
  header.calibration = calibration->id();
  header.joint_heads = calibration->joint_heads();
  object = EncodeWith(calibration, header, kv);
  index.emplace(*ObjectIndex::Parse(object, object.size()));
}

std::vector<int32_t> GpuTestChunk::PositionsFrom(int32_t first) const {
  std::vector<int32_t> positions(header.positions.size());
  std::iota(positions.begin(), positions.end(), first);
  return positions;
}

absl::Status GpuTestChunk::DecodeOnCpu(Level level, const KvSlice& slice,
                                       absl::Span<const int32_t> positions,
                                       const MutableKvView& kv) const {
  const auto decoder = ObjectDecoder::Create(&*index, calibration, positions);
  if (!decoder.ok()) return decoder.status();
  for (int layer = 0; layer < slice.layers(); ++layer) {
    absl::Status decoded = decoder->DecodeLayerOf(
        object, level, slice.layer_begin + layer, slice.head_begin,
        slice.head_end, kv.Layer(layer));
    if (!decoded.ok()) return decoded;
  }
  return absl::OkStatus();
}

ChunkRequest GpuTestChunk::Request(Level level, const KvSlice& slice,
                                   absl::Span<const int32_t> positions,
                                   const MutableKvView& kv) const {
  return {.index = &*index,
          .object = object,
          .level = level,
          .slice = slice,
          .positions = positions,
          .places = StridedPlaces{kv.base(), kv.strides()}};
}

GpuTestChunk JointTestChunk(const ChunkOptions& options, int joint_heads,
                            uint32_t seed) {
  auto calibration =
      JointParts(GeometryOf(options.shape), joint_heads).Create();
  KDN_CHECK(calibration.ok(), "the parts are in order");
  const KvShape& shape = options.shape;
  std::mt19937 rng(seed);
  KvBuffer kv(shape, Layout::kTokenMajor);
  kv.FillRandom(&rng);
  for (int token = 3; token < shape.tokens; token += 5) {
    const float factor = token % 4 == 0 ? 2.0f : 6.0f;
    for (int layer = 0; layer < shape.layers; ++layer) {
      for (const KvPart part : {KvPart::kK, KvPart::kV}) {
        for (int head = 0; head < shape.kv_heads; ++head) {
          const std::vector<float> row = kv.Row(layer, part, head, token);
          for (int d = 0; d < shape.head_dim; d += 2) {
            kv.Set(layer, part, head, token, d, factor * row[d]);
          }
        }
      }
    }
  }
  return GpuTestChunk(options, *std::move(calibration), kv.view());
}

KvShape ShapeOf(const KvShape& whole, const KvSlice& slice) {
  KvShape shape = whole;
  shape.layers = slice.layers();
  shape.kv_heads = slice.heads();
  return shape;
}

absl::Status CompareWithCpu(const GpuTestChunk& chunk, Level level,
                            const KvSlice& slice, Layout layout) {
  const KvShape shape = ShapeOf(chunk.header.shape, slice);
  KvBuffer expected(shape, layout);
  KvBuffer decoded(shape, layout);
  const auto positions = chunk.PositionsFrom(4321);
  if (absl::Status s =
          chunk.DecodeOnCpu(level, slice, positions, expected.view());
      !s.ok()) {
    return s;
  }
  BatchPlan plan(chunk.image);
  if (absl::Status s =
          plan.Add(chunk.Request(level, slice, positions, decoded.view()));
      !s.ok()) {
    return s;
  }
  if (absl::Status s = DecodeOnHost(plan); !s.ok()) return s;
  if (plan.output_bytes() != shape.bytes()) {
    return absl::InternalError("the plan writes another number of bytes");
  }
  return expected.bytes() == decoded.bytes()
             ? absl::OkStatus()
             : absl::InternalError("the rows differ");
}

absl::Status ComparePagesWithCpu(const GpuTestChunk& chunk, Level level) {
  const KvShape& shape = chunk.header.shape;
  constexpr int kBlocks = 9;
  constexpr int kTokens = 16;
  const size_t row = shape.head_bytes() * shape.kv_heads;
  const size_t plane = kBlocks * kTokens * row;
  KvPages pages{.keys = {},
                .values = {},
                .block_stride = static_cast<int64_t>(kTokens * row),
                .token_stride = static_cast<int64_t>(row),
                .head_stride = static_cast<int64_t>(shape.head_bytes()),
                .block_tokens = kTokens,
                .blocks = kBlocks,
                .block_table = {8, 3, 0, 6, 2},
                .first_token = 21};
  AlignedMemory memory(2 * shape.layers * plane, std::byte{0});
  for (int layer = 0; layer < shape.layers; ++layer) {
    pages.keys.push_back(memory.data() + 2 * layer * plane);
    pages.values.push_back(pages.keys.back() + plane);
  }
  KvBuffer expected(shape, Layout::kTokenMajor);
  if (absl::Status s = chunk.DecodeOnCpu(
          level, chunk.All(), chunk.header.positions, expected.view());
      !s.ok()) {
    return s;
  }
  ChunkRequest request =
      chunk.Request(level, chunk.All(), chunk.header.positions, {});
  request.places = pages;
  BatchPlan plan(chunk.image);
  if (absl::Status s = plan.Add(request); !s.ok()) return s;
  if (absl::Status s = DecodeOnHost(plan); !s.ok()) return s;
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (const KvPart part : {KvPart::kK, KvPart::kV}) {
      for (int token = 0; token < shape.tokens; ++token) {
        const int at = pages.first_token + token;
        const std::byte* page =
            (part == KvPart::kK ? pages.keys : pages.values)[layer] +
            (pages.block_table[at / kTokens] * kTokens + at % kTokens) * row;
        if (std::memcmp(page, expected.view().At(layer, part, 0, token), row) !=
            0) {
          return absl::InternalError("the rows differ");
        }
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace kdn::codec::cuda
