// Any bytes as an object: parse, verify, decode. Twice more with checksums made
// right, so that mutations get past them to the code behind.

#include <cstring>

#include "codec/decoder.h"
#include "codec/object.h"
#include "codec/prefix_format.h"
#include "codec/stream_layout.h"
#include "kv/check.h"
#include "tests/codec/test_chunk.h"
#include "tests/fuzz/fuzz_target.h"

namespace kdn::codec {
namespace {

// What parses is exactly what the encoder would write.
void CheckCanonical(const ObjectIndex& index,
                    absl::Span<const std::byte> object) {
  const ObjectHeader& header = index.header();
  std::vector<StreamEntry> entries(StreamCount(header.shape, header.levels));
  for (const StreamGroup& group : GroupsOf(header.shape, header.levels)) {
    for (const StreamId& id : StreamsOf(group, 0, header.shape.kv_heads)) {
      entries[SlotOf(header.shape, header.levels, id)] = index.Entry(id);
    }
  }
  std::vector<std::byte> prefix(index.prefix_bytes());
  WritePrefix(header, entries, absl::MakeSpan(prefix));
  KDN_CHECK(std::memcmp(prefix.data(), object.data(), prefix.size()) == 0,
            "a prefix that parses has one spelling");
}

void DecodeEveryLayer(const ObjectIndex& index,
                      absl::Span<const std::byte> object, bool verified) {
  const ObjectHeader& header = index.header();
  std::vector<int32_t> wanted = header.positions;
  for (size_t i = 0; i < wanted.size(); i += 2) wanted[i] /= 2;
  const auto decoder = ObjectDecoder::Create(&index, wanted);
  KDN_CHECK(decoder.ok(), "positions fit the header");
  KvShape layer = header.shape;
  layer.layers = 1;
  KvBuffer destination(layer, Layout::kPadded);
  for (const StreamGroup& group : GroupsOf(header.shape, header.levels)) {
    const absl::Status status =
        decoder->DecodeLayerOf(object, group.level, group.layer, 0,
                               header.shape.kv_heads, destination.view());
    KDN_CHECK(status.ok() || absl::IsDataLoss(status), "only damage fails");
    KDN_CHECK(status.ok() || !verified || group.level != Level::kLossless,
              "verified lossless streams decode");
  }
}

void Consume(absl::Span<const std::byte> object) {
  const auto index = ObjectIndex::Parse(object, object.size());
  if (!index.ok()) {
    KDN_CHECK(absl::IsDataLoss(index.status()), "bad bytes are DATA_LOSS");
    return;
  }
  CheckCanonical(*index, object);
  const absl::Status verified = VerifyObject(*index, object);
  KDN_CHECK(verified.ok() || absl::IsDataLoss(verified), "only damage fails");
  DecodeEveryLayer(*index, object, verified.ok());
}

}  // namespace
}  // namespace kdn::codec

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<std::byte> object(size);
  if (size > 0) std::memcpy(object.data(), data, size);
  kdn::codec::Consume(object);
  kdn::codec::RepairPrefixCrc(absl::MakeSpan(object));
  kdn::codec::Consume(object);
  kdn::codec::RepairStreamCrcs(absl::MakeSpan(object));
  kdn::codec::Consume(object);
  return 0;
}

namespace kdn::fuzz {

std::vector<std::string> Seeds() {
  std::vector<std::string> seeds;
  uint32_t number = 0;
  for (Dtype dtype : {Dtype::kBf16, Dtype::kFp16, Dtype::kFp32}) {
    for (LevelSet levels : {LevelSet::Of(Level::kLossless),
                            LevelSet::Of(Level::kInt8), LevelSet::All()}) {
      codec::ChunkOptions options;
      options.shape.dtype = dtype;
      options.shape.tokens = 3;
      options.levels = levels;
      options.pairing =
          number % 2 == 0 ? RopePairing::kNeoX : RopePairing::kGptJ;
      options.rotary_dim = number % 3 == 0 ? 8 : 4;
      const auto object = codec::RandomObject(options, ++number);
      seeds.emplace_back(reinterpret_cast<const char*>(object.data()),
                         object.size());
    }
  }
  return seeds;
}

}  // namespace kdn::fuzz
