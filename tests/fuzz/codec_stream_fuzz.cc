// Decodes any bytes as the inside of a lossless or int8 stream, behind the
// checksum that would stop mutations. The result is rows or DATA_LOSS.
// codec_transform_fuzz does the same for the other levels.
//
// The first four bytes choose the stream: head_dim, tokens, dtype, and one byte
// for K or V and the level. The stream follows.

#include <cstring>
#include <iterator>
#include <random>

#include "codec/stream_codec.h"
#include "kv/check.h"
#include "tests/codec/supported_isas.h"
#include "tests/fuzz/allocated_bytes.h"
#include "tests/fuzz/fuzz_target.h"

namespace kdn::codec {
namespace {

constexpr size_t kHeadBytes = 4;
constexpr int kDims[] = {1, 2, 8, 24, 64, 129};
constexpr int kTokensMax = 80;

// The choice that the first bytes make.
struct Choice {
  StreamShape shape;
  Level level = Level::kLossless;
};

Choice ChoiceOf(const uint8_t* head) {
  Choice choice;
  choice.shape = {static_cast<KvPart>(head[3] % 2), 1, head[1] % kTokensMax + 1,
                  kDims[head[0] % std::size(kDims)],
                  static_cast<Dtype>(head[2] % 3)};
  choice.level = head[3] / 2 % 2 == 0 ? Level::kLossless : Level::kInt8;
  return choice;
}

// The rows of one head, one behind the other.
struct HeadRows {
  explicit HeadRows(const StreamShape& shape)
      : bytes(shape.values() * SizeOf(shape.dtype)),
        stride(static_cast<int64_t>(shape.row_bytes())) {}
  MutableRows out() { return {bytes.data(), stride}; }
  Rows in() const { return {bytes.data(), stride}; }
  std::vector<std::byte> bytes;
  int64_t stride;
};

// The most bytes that decoding may allocate, freed or not, without the decoded
// rows: one row and the scales.
size_t AllocatedMax(const StreamShape& shape) {
  return 16 * static_cast<size_t>(shape.head_dim + shape.tokens) + 1024;
}

absl::Status Decode(const Choice& choice, absl::Span<const std::byte> stream,
                    Isa isa, HeadRows* rows) {
  StreamReader reader(stream);
  StreamContext context;
  context.isa = isa;
  const MutableRows out = rows->out();
  const size_t before = fuzz::AllocatedBytes();
  const absl::Status status =
      CodecOf(choice.level)
          .Decode(choice.shape, {&reader, 1}, context, {&out, 1});
  KDN_CHECK(fuzz::AllocatedBytes() - before <= AllocatedMax(choice.shape),
            "memory is taken in proportion to a row and the scales");
  KDN_CHECK(!status.ok() || reader.remaining() == 0,
            "the frame's checksum is over all of the stream");
  return status;
}

std::vector<std::byte> Encode(const Choice& choice, const HeadRows& rows) {
  const StreamCodec& codec = CodecOf(choice.level);
  std::vector<std::byte> stream(codec.BytesMax(choice.shape, choice.level));
  StreamRoom room = {absl::MakeSpan(stream)};
  const Rows in = rows.in();
  KDN_CHECK(codec.Encode(choice.shape, {&in, 1}, {}, {&room, 1}).ok(),
            "the level holds such values");
  KDN_CHECK(codec.MayHaveBytes(choice.shape, choice.level,
                               static_cast<uint32_t>(room.bytes)),
            "a decoder takes what an encoder gives");
  stream.resize(room.bytes);
  return stream;
}

void Consume(const Choice& choice, absl::Span<const std::byte> bytes) {
  if (!CodecOf(choice.level)
           .MayHaveBytes(choice.shape, choice.level,
                         static_cast<uint32_t>(bytes.size()))) {
    return;
  }
  // A copy of exactly that size, so that a sanitizer sees any over-read.
  const std::vector<std::byte> stream(bytes.begin(), bytes.end());
  HeadRows rows(choice.shape);
  const absl::Status status = Decode(choice, stream, Isa::kScalar, &rows);
  KDN_CHECK(status.ok() || absl::IsDataLoss(status), "only damage fails");
  for (const Isa isa : IsasOfThisCpu()) {
    HeadRows same(choice.shape);
    KDN_CHECK(Decode(choice, stream, isa, &same) == status &&
                  (!status.ok() || same.bytes == rows.bytes),
              "every loop gives the same");
  }
  if (!status.ok() || choice.level != Level::kLossless) return;
  HeadRows again(choice.shape);
  KDN_CHECK(Decode(choice, Encode(choice, rows), BestIsa(), &again).ok() &&
                again.bytes == rows.bytes,
            "lossless keeps the bits of any rows");
}

std::string SeedOf(const uint8_t* head, std::mt19937* rng) {
  const Choice choice = ChoiceOf(head);
  HeadRows rows(choice.shape);
  std::normal_distribution<float> normal;
  const size_t size = SizeOf(choice.shape.dtype);
  for (size_t i = 0; i < choice.shape.values(); ++i) {
    // A few values have an exponent that no other value has.
    const float value = normal(*rng) * (i % 97 == 41 ? 1e-3f : 1.0f);
    StoreFloats(choice.shape.dtype, &value, 1, rows.bytes.data() + i * size);
  }
  const std::vector<std::byte> stream = Encode(choice, rows);
  return std::string(reinterpret_cast<const char*>(head), kHeadBytes) +
         std::string(reinterpret_cast<const char*>(stream.data()),
                     stream.size());
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
    for (uint8_t tokens : {0, 20, 63}) {
      for (uint8_t dtype = 0; dtype < 3; ++dtype) {
        for (uint8_t kind : {0, 2, 3}) {
          const uint8_t head[codec::kHeadBytes] = {dim, tokens, dtype, kind};
          seeds.push_back(codec::SeedOf(head, &rng));
        }
      }
    }
  }
  return seeds;
}

}  // namespace kdn::fuzz
