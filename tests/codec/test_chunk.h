#ifndef KDN_TESTS_CODEC_TEST_CHUNK_H_
#define KDN_TESTS_CODEC_TEST_CHUNK_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "codec/decoder.h"
#include "codec/encoder.h"
#include "codec/format/object.h"

namespace kdn::codec {

// What a test wants of a chunk; the defaults are the smallest with more than
// one of everything.
struct ChunkOptions {
  KvShape shape = {.layers = 2,
                   .kv_heads = 3,
                   .tokens = 5,
                   .head_dim = 8,
                   .dtype = Dtype::kBf16};
  RopePairing pairing = RopePairing::kNeoX;
  int rotary_dim = 8;
  double attention_factor = 1.0;
  int first_position = 100;
  LevelSet levels = LevelSet::All();
};

ObjectHeader HeaderOf(const ChunkOptions& options);

enum class Layout { kTokenMajor, kHeadMajor, kPadded };
KvStrides StridesOf(Layout layout, const KvShape& shape);

// Memory aligned to a cache line, as an engine's is.
class AlignedMemory {
 public:
  // At least so many bytes.
  AlignedMemory(size_t bytes, std::byte fill);

  std::byte* data() { return lines_.front().bytes; }
  absl::Span<const std::byte> bytes() const {
    return {lines_.front().bytes, lines_.size() * sizeof(Line)};
  }

 private:
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  std::vector<Line> lines_;
};

// KV in memory of its own, aligned to a cache line as an engine's is. Padding
// between rows is filled with `fill`.
class KvBuffer {
 public:
  KvBuffer(const KvShape& shape, Layout layout,
           std::byte fill = std::byte{0xee});

  // Standard normal values, rounded to the dtype.
  void FillRandom(std::mt19937* rng);
  void Set(int layer, KvPart part, int head, int token, int dim, float value);
  std::vector<float> Row(int layer, KvPart part, int head, int token) const;

  MutableKvView view() {
    return MutableKvView(memory_.data(), shape_, strides_);
  }
  KvView view() const { return KvView(bytes().data(), shape_, strides_); }
  const KvShape& shape() const { return shape_; }
  absl::Span<const std::byte> bytes() const { return memory_.bytes(); }

 private:
  KvShape shape_;
  KvStrides strides_;
  AlignedMemory memory_;
};

// Whether two views show the same bits, whatever their layouts.
bool SameElements(const KvView& a, const KvView& b);

// The built-in calibration where the header needs one; null where it names
// another.
std::shared_ptr<const Calibration> TestCalibrationOf(
    const ObjectHeader& header);
// The object of `kv`; CHECK-fails when encoding does.
std::vector<std::byte> Encode(const ObjectHeader& header, const KvView& kv);
// The same, with a calibration of the test's own.
std::vector<std::byte> EncodeWith(
    std::shared_ptr<const Calibration> calibration, const ObjectHeader& header,
    const KvView& kv);
// An object of random values; a function of the options and the seed.
std::vector<std::byte> RandomObject(const ChunkOptions& options, uint32_t seed);

// Decodes all layers and heads of an object that was just encoded.
absl::Status DecodeAll(const std::vector<std::byte>& object, Level level,
                       absl::Span<const int32_t> positions,
                       const KvDestination& destination);
absl::Status DecodeAllWith(std::shared_ptr<const Calibration> calibration,
                           const std::vector<std::byte>& object, Level level,
                           absl::Span<const int32_t> positions,
                           const KvDestination& destination);

// A chunk of random values, encoded.
struct EncodedChunk {
  explicit EncodedChunk(const ChunkOptions& options,
                        Layout layout = Layout::kTokenMajor, uint32_t seed = 3);
  ObjectDecoder Decoder(absl::Span<const int32_t> positions) const;

  ObjectHeader header;
  KvBuffer kv;
  std::vector<std::byte> object;
  std::optional<ObjectIndex> index;
};

std::vector<int32_t> Shifted(std::vector<int32_t> positions, int32_t by);

// The lossless and int8 levels of a header that an encoder may not support,
// with streams of zeros: an object that parses and verifies. REQUIRES:
// CheckHeader is OK, no other levels.
std::vector<std::byte> ObjectOfZeros(const ObjectHeader& header);

// Makes a tampered object consistent again, as far as that is possible: the
// checksums of its sections and its prefix, then those of its streams. What a
// fuzzer needs to get past them.
void RepairPrefixCrc(absl::Span<std::byte> object);
void RepairStreamCrcs(absl::Span<std::byte> object);

}  // namespace kdn::codec

#endif  // KDN_TESTS_CODEC_TEST_CHUNK_H_
