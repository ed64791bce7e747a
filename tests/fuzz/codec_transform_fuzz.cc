// Decodes any bytes as the inside of transform-coded streams, behind the
// checksum that would stop mutations. The result is rows or DATA_LOSS.
//
// The first eight bytes choose the streams: head_dim, tokens, heads and dtype,
// levels, then the sizes in bytes of the base level's stream and of the next
// one (16 bits each). The streams follow.

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

#include "codec/format/stream_layout.h"
#include "codec/transform/transform_codec.h"
#include "kv/check.h"
#include "tests/codec/supported_isas.h"
#include "tests/codec/test_calibration.h"
#include "tests/fuzz/allocated_bytes.h"
#include "tests/fuzz/fuzz_target.h"

namespace kdn::codec {
namespace {

constexpr size_t kHeadBytes = 8;
constexpr int kDims[] = {1, 8, 24, 128, 256};
constexpr int kHeadsMax = 3;
constexpr int kTokensMax = 40;

// The choice that the first bytes make.
struct Choice {
  StreamShape shape;
  enum { kBuiltIn, kCalibrated, kJoint } calibration = kBuiltIn;
  size_t levels = 1;
  size_t bytes[kLadderSteps] = {};
};

Choice ChoiceOf(const uint8_t* head) {
  Choice choice;
  choice.shape = {KvPart::kV, head[2] % kHeadsMax + 1, head[1] % kTokensMax + 1,
                  kDims[head[0] % std::size(kDims)],
                  static_cast<Dtype>(head[2] / kHeadsMax % 3)};
  // Several heads share a stream only if they are small.
  choice.shape.heads =
      HeadsPerStream(choice.shape.heads, choice.shape.head_dim, Level::kBase);
  choice.levels = head[3] % kLadderSteps + 1;
  const int calibration = head[3] / kLadderSteps % 3;
  choice.calibration = calibration == 0   ? Choice::kBuiltIn
                       : calibration == 1 ? Choice::kCalibrated
                                          : Choice::kJoint;
  if (choice.calibration == Choice::kJoint) {
    choice.shape.part = KvPart::kK;
    choice.shape.joint = true;
    choice.shape.heads *= 2;
  }
  choice.bytes[0] = head[4] | head[5] << 8;
  choice.bytes[1] = head[6] | head[7] << 8;
  return choice;
}

std::shared_ptr<const Calibration> CalibrationOf(const Choice& choice) {
  // [dim][heads - 1][calibration]; each one is made once.
  static std::shared_ptr<const Calibration> made[std::size(kDims)]
                                                [2 * kHeadsMax][3];
  const size_t dim =
      std::find(std::begin(kDims), std::end(kDims), choice.shape.head_dim) -
      std::begin(kDims);
  auto& calibration = made[dim][choice.shape.heads - 1][choice.calibration];
  if (calibration != nullptr) return calibration;
  Calibration::Geometry geometry = {1, choice.shape.heads,
                                    choice.shape.head_dim};
  switch (choice.calibration) {
    case Choice::kBuiltIn:
      return calibration = Calibration::Uncalibrated(geometry);
    case Choice::kCalibrated:
      return calibration = MadeCalibration(geometry);
    case Choice::kJoint:
      geometry.kv_heads /= 2;
      return calibration = MadeJointCalibration(geometry, geometry.kv_heads);
  }
  return calibration;
}

StreamContext ContextOf(const Calibration& calibration) {
  return {.transform = &calibration.Of(0, KvPart::kK, 0),
          .tables = calibration.tables()};
}

// The rows of all heads of the shape, one head behind the other.
struct HeadRows {
  explicit HeadRows(const StreamShape& shape)
      : bytes(shape.values() * SizeOf(shape.dtype)) {
    const size_t head_bytes = bytes.size() / shape.heads;
    const auto stride = static_cast<int64_t>(shape.row_bytes());
    for (int head = 0; head < shape.heads; ++head) {
      rows.push_back({bytes.data() + head * head_bytes, stride});
      sources.push_back({bytes.data() + head * head_bytes, stride});
    }
  }
  std::vector<std::byte> bytes;
  std::vector<MutableRows> rows;
  std::vector<Rows> sources;
};

// The most bytes that decoding may allocate, freed or not, without the decoded
// rows. Patches and raw tokens are in proportion to the streams' bytes; values
// and the floats and sums of 32 tokens are in proportion to the shape. Each
// class of tokens may add a padding of 7 tokens.
size_t AllocatedMax(const StreamShape& shape, size_t stream_bytes) {
  const size_t tokens = shape.tokens + 64;
  const size_t components = shape.heads * shape.head_dim + 16;
  return 4 * stream_bytes + 8 * tokens * components + 2048;
}

absl::Status Decode(const Choice& choice,
                    const std::vector<std::vector<std::byte>>& streams, Isa isa,
                    absl::Span<const MutableRows> rows) {
  std::vector<StreamReader> readers(streams.begin(), streams.end());
  size_t stream_bytes = 0;
  for (const auto& stream : streams) stream_bytes += stream.size();
  StreamContext context = ContextOf(*CalibrationOf(choice));
  context.isa = isa;
  const size_t before = fuzz::AllocatedBytes();
  absl::Status status = TransformCodec().Decode(
      choice.shape, absl::MakeSpan(readers), context, rows);
  KDN_CHECK(fuzz::AllocatedBytes() - before <=
                AllocatedMax(choice.shape, stream_bytes),
            "memory is taken in proportion to shape and streams");
  return status;
}

void Consume(const Choice& choice, absl::Span<const std::byte> bytes) {
  std::vector<std::vector<std::byte>> streams;
  for (size_t step = 0; step < choice.levels; ++step) {
    const size_t count = step + 1 == choice.levels
                             ? bytes.size()
                             : std::min(choice.bytes[step], bytes.size());
    // A copy of exactly that size, so that a sanitizer sees any over-read.
    streams.emplace_back(bytes.begin(), bytes.begin() + count);
    bytes.remove_prefix(count);
    if (!TransformCodec().MayHaveBytes(choice.shape,
                                       LadderTo(Level::kBase2)[step],
                                       static_cast<uint32_t>(count))) {
      return;
    }
  }
  HeadRows whole(choice.shape);
  const absl::Status status = Decode(choice, streams, Isa::kScalar, whole.rows);
  KDN_CHECK(status.ok() || absl::IsDataLoss(status), "only damage fails");
  for (const Isa isa : IsasOfThisCpu()) {
    HeadRows same(choice.shape);
    KDN_CHECK(Decode(choice, streams, isa, same.rows) == status &&
                  (!status.ok() || same.bytes == whole.bytes),
              "every loop gives the same");
  }
  if (!status.ok()) return;
  // The last head decoded alone equals the last head of all.
  HeadRows last(choice.shape);
  for (size_t head = 0; head + 1 < last.rows.size(); ++head) {
    last.rows[head].base = nullptr;
  }
  KDN_CHECK(Decode(choice, streams, BestIsa(), last.rows).ok(),
            "the streams decoded before");
  const size_t head_bytes = whole.bytes.size() / choice.shape.heads;
  KDN_CHECK(std::equal(whole.bytes.end() - head_bytes, whole.bytes.end(),
                       last.bytes.end() - head_bytes),
            "a head does not depend on the choice of heads");
}

std::string SeedOf(const uint8_t* head, std::mt19937* rng) {
  Choice choice = ChoiceOf(head);
  HeadRows rows(choice.shape);
  std::normal_distribution<float> normal;
  const size_t values = choice.shape.values();
  for (size_t i = 0; i < values; ++i) {
    // A few tokens are so far from the mean that they are kept as they are.
    const bool is_far = i / choice.shape.head_dim % 19 == 7;
    const float value = normal(*rng) * (is_far ? 300.0f : 1.0f);
    StoreFloats(choice.shape.dtype, &value, 1,
                rows.bytes.data() + i * SizeOf(choice.shape.dtype));
  }
  std::vector<int32_t> positions(choice.shape.tokens);
  std::iota(positions.begin(), positions.end(), 0);
  StreamContext context = ContextOf(*CalibrationOf(choice));
  context.positions = positions;
  std::vector<std::vector<std::byte>> streams;
  std::vector<StreamRoom> rooms;
  for (Level level : LadderTo(Level::kBase2).first(choice.levels)) {
    streams.emplace_back(TransformCodec().BytesMax(choice.shape, level));
    rooms.push_back({absl::MakeSpan(streams.back())});
  }
  KDN_CHECK(
      TransformCodec()
          .Encode(choice.shape, rows.sources, context, absl::MakeSpan(rooms))
          .ok(),
      "normal values are finite");
  std::string seed(reinterpret_cast<const char*>(head), kHeadBytes);
  for (size_t step = 0; step < rooms.size(); ++step) {
    const size_t bytes = rooms[step].bytes;
    KDN_CHECK(bytes <= 0xffff, "a seed's lengths have 16 bits");
    if (step < 2) {
      seed[4 + 2 * step] = static_cast<char>(bytes & 0xff);
      seed[5 + 2 * step] = static_cast<char>(bytes >> 8);
    }
    seed.append(reinterpret_cast<const char*>(streams[step].data()), bytes);
  }
  return seed;
}

}  // namespace
}  // namespace kdn::codec

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < kdn::codec::kHeadBytes) return 0;
  kdn::codec::Consume(
      kdn::codec::ChoiceOf(data),
      {reinterpret_cast<const std::byte*>(data) + kdn::codec::kHeadBytes,
       size - kdn::codec::kHeadBytes});
  return 0;
}

namespace kdn::fuzz {

std::vector<std::string> Seeds() {
  std::mt19937 rng(8);
  std::vector<std::string> seeds;
  for (uint8_t dim = 0; dim < std::size(codec::kDims); ++dim) {
    for (uint8_t tokens : {2, 21, 39}) {
      for (uint8_t levels = 0; levels < 3 * codec::kLadderSteps; ++levels) {
        const auto kind = static_cast<uint8_t>(seeds.size());
        const uint8_t head[codec::kHeadBytes] = {dim, tokens, kind, levels};
        seeds.push_back(codec::SeedOf(head, &rng));
      }
    }
  }
  return seeds;
}

}  // namespace kdn::fuzz
