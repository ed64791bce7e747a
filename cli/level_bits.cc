#include "cli/level_bits.h"

#include <cstddef>
#include <utility>
#include <vector>

#include "codec/encoder.h"
#include "codec/format/stream_layout.h"
#include "model/kv_cache.h"

namespace kdn::cli {
namespace {

absl::StatusOr<codec::ObjectHeader> HeaderOf(const ModelSpec& spec,
                                             absl::Span<const int32_t> tokens,
                                             const model::KvCache& cache) {
  absl::StatusOr<Namespace> ns = Namespace::Parse("calibration");
  if (!ns.ok()) return ns.status();
  return codec::ObjectHeader{
      .identity = {.fingerprint = FingerprintOf(spec),
                   .ns = *std::move(ns),
                   .condition = {},
                   .tokens = {tokens.begin(), tokens.end()}},
      .shape = ShapeOf(spec, cache.size()),
      .rope = spec.rope,
      .positions = cache.positions(),
      .levels = {},
      .calibration = {}};
}

absl::StatusOr<size_t> ObjectBytes(
    const codec::ObjectHeader& header, const KvView& kv,
    const std::shared_ptr<const codec::Calibration>& calibration) {
  std::vector<std::byte> object(codec::ObjectBytesMax(header));
  auto encoder =
      codec::ObjectEncoder::Create(header, calibration, absl::MakeSpan(object));
  if (!encoder.ok()) return encoder.status();
  for (int layer = 0; layer < header.shape.layers; ++layer) {
    if (absl::Status s = encoder->EncodeLayer(kv.Layer(layer)); !s.ok()) {
      return s;
    }
  }
  const auto finished = encoder->Finish();
  if (!finished.ok()) return finished.status();
  return finished->bytes;
}

}  // namespace

absl::StatusOr<LevelBits> MeasureBits(
    const model::Llama& llama, absl::Span<const int32_t> tokens,
    const std::shared_ptr<const codec::Calibration>& calibration) {
  model::KvCache cache(llama.spec(), static_cast<int>(tokens.size()));
  if (auto s = llama.PrefillInChunks(cache, tokens, 0).status(); !s.ok()) {
    return s;
  }
  auto header = HeaderOf(llama.spec(), tokens, cache);
  if (!header.ok()) return header.status();
  const KvView kv = cache.Tokens(0, cache.size());
  const double values = static_cast<double>(kv.shape().bytes()) /
                        static_cast<double>(SizeOf(kv.shape().dtype));
  LevelBits bits{};
  for (int step = 0; step < codec::kLadderSteps; ++step) {
    const Level level = codec::LadderTo(Level::kBase2)[step];
    header->levels = LevelSet::Of(level).WithRefined();
    const auto bytes = ObjectBytes(*header, kv, calibration);
    if (!bytes.ok()) return bytes.status();
    bits[step] = 8.0 * static_cast<double>(*bytes) / values;
  }
  return bits;
}

}  // namespace kdn::cli
