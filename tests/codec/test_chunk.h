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

// The chunk that a test wants. The defaults are small, with more than one
// layer, head, token and dimension.
// The levels that need no joint streams, and so no calibration.
inline constexpr LevelSet kApartLevels =
    LevelSet::All().Without(LevelSet::Of(Level::kArchive));

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
  LevelSet levels = kApartLevels;
};

ObjectHeader HeaderOf(const ChunkOptions& options);

enum class Layout { kTokenMajor, kHeadMajor, kPadded };
KvStrides StridesOf(Layout layout, const KvShape& shape);

// Memory aligned to a cache line, as an engine's is.
class AlignedMemory {
 public:
  // At least `bytes` bytes, filled with `fill`.
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

// Whether two views have the same bits in all elements; strides may differ.
bool SameElements(const KvView& a, const KvView& b);

// The built-in calibration if the header needs a calibration. Null if the
// header needs no calibration or names another one.
std::shared_ptr<const Calibration> TestCalibrationOf(
    const ObjectHeader& header);
// Encodes `kv`; CHECK-fails when the encoder returns an error.
std::vector<std::byte> Encode(const ObjectHeader& header, const KvView& kv);
// The same with the given calibration.
std::vector<std::byte> EncodeWith(
    std::shared_ptr<const Calibration> calibration, const ObjectHeader& header,
    const KvView& kv);
// An object of random values. The same options and seed give the same object.
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

// An object with this header and streams of zeros. It parses and verifies, also
// if no encoder supports the header. REQUIRES: CheckHeader is OK; levels are
// only lossless and int8.
std::vector<std::byte> ObjectOfZeros(const ObjectHeader& header);

// Repair the checksums of a changed object, as far as its fields allow it, so
// that tests and fuzzers get past the checksums. RepairPrefixCrc repairs the
// checksums of the sections and of the prefix. RepairStreamCrcs also repairs
// the checksums of the streams.
void RepairPrefixCrc(absl::Span<std::byte> object);
void RepairStreamCrcs(absl::Span<std::byte> object);

}  // namespace kdn::codec

#endif  // KDN_TESTS_CODEC_TEST_CHUNK_H_
