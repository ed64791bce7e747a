#include "cli/level_figures.h"

#include <cstddef>
#include <numeric>
#include <utility>

#include "cli/calibration_run.h"
#include "codec/format/stream_layout.h"
#include "codec/whole_object.h"
#include "kv/line_vector.h"
#include "model/divergence.h"
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

using SharedCalibration = std::shared_ptr<const codec::Calibration>;

// The logits of tokens behind a context, which stays as it is.
absl::StatusOr<std::vector<float>> LogitsBehind(
    const model::Llama& llama, model::KvCache& context,
    absl::Span<const int32_t> tokens) {
  const int size = context.size();
  std::vector<int32_t> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), size);
  auto logits =
      llama.Prefill(context, tokens, positions, model::LogitRows::kAll);
  context.Truncate(size);
  return logits;
}

using Figures = std::array<LevelFigures, kCalibratedLevels.size()>;

// Adds the figures of one window to `sums`.
absl::Status MeasureWindow(const model::Llama& llama,
                           absl::Span<const int32_t> window,
                           const SharedCalibration& calibration,
                           Figures& sums) {
  const size_t size = window.size() - BehindTokens(window.size());
  const auto behind = window.subspan(size);
  const int capacity = static_cast<int>(window.size());
  model::KvCache exact(llama.spec(), capacity);
  if (auto s = llama.PrefillInChunks(exact, window.first(size), 0).status();
      !s.ok()) {
    return s;
  }
  const auto right = LogitsBehind(llama, exact, behind);
  if (!right.ok()) return right.status();
  auto header = HeaderOf(llama.spec(), window.first(size), exact);
  if (!header.ok()) return header.status();
  model::KvCache decoded(llama.spec(), capacity);
  decoded.Append(exact.positions());
  const MutableKvView out = decoded.Tokens(0, decoded.size());
  const auto values = static_cast<double>(out.shape().bytes()) /
                      static_cast<double>(SizeOf(out.shape().dtype));
  LineVector<std::byte> object;
  for (size_t i = 0; i < kCalibratedLevels.size(); ++i) {
    const Level level = kCalibratedLevels[i];
    header->levels = LevelSet::Of(level).WithRefined();
    if (absl::Status s = codec::EncodeWhole(
            *header, calibration, exact.Tokens(0, exact.size()), object);
        !s.ok()) {
      return s;
    }
    if (absl::Status s = codec::DecodeWhole(object, level, calibration,
                                            exact.positions(), out);
        !s.ok()) {
      return s;
    }
    const auto logits = LogitsBehind(llama, decoded, behind);
    if (!logits.ok()) return logits.status();
    sums[i].bits_per_value += 8.0 * static_cast<double>(object.size()) / values;
    sums[i].divergence +=
        model::MeanDivergence(*right, *logits, llama.config().vocab_size);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Figures> MeasureLevels(
    const model::Llama& llama, absl::Span<const std::vector<int32_t>> windows,
    const SharedCalibration& calibration) {
  Figures figures{};
  for (const std::vector<int32_t>& window : windows) {
    if (absl::Status s = MeasureWindow(llama, window, calibration, figures);
        !s.ok()) {
      return s;
    }
  }
  for (LevelFigures& level : figures) {
    level.bits_per_value /= static_cast<double>(windows.size());
    level.divergence /= static_cast<double>(windows.size());
  }
  return figures;
}

}  // namespace kdn::cli
