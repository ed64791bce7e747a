#include "cli/calibration_run.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "codec/calibration/calibrator.h"
#include "model/divergence.h"

namespace kdn::cli {
namespace {

// The model reads the text in windows. The first part of a window is context:
// its KV is the sample to calibrate on. The tokens behind the context show how
// much noise in that KV changes the logits.
constexpr int kContextTokens = 1024;
constexpr int kBehindTokens = 64;
constexpr size_t kProbesMax = 4;
// Variance of the noise divided by the variance of the values: about the error
// of the base level.
constexpr double kNoise = 0.03;
// The least weight of a layer, as a share of the mean weight: a few probes may
// miss the effect of a layer.
constexpr double kWeightMin = 0.02;

std::vector<int32_t> PositionsFrom(int begin, int count) {
  std::vector<int32_t> positions(count);
  std::iota(positions.begin(), positions.end(), begin);
  return positions;
}

struct Probe {
  std::unique_ptr<model::KvCache> cache;  // of the context
  std::vector<int32_t> behind;            // the tokens behind the context
  std::vector<float> logits;              // of those tokens, without noise
};

absl::StatusOr<std::vector<float>> LogitsBehind(const model::Llama& llama,
                                                Probe& probe) {
  const int context = probe.cache->size();
  auto logits = llama.Prefill(
      *probe.cache, probe.behind,
      PositionsFrom(context, static_cast<int>(probe.behind.size())),
      model::LogitRows::kAll);
  probe.cache->Truncate(context);
  return logits;
}

absl::StatusOr<Probe> Read(const model::Llama& llama,
                           absl::Span<const int32_t> window,
                           codec::Calibrator& calibrator) {
  const int behind =
      std::min<int>(kBehindTokens, static_cast<int>(window.size()) / 4);
  const int context = static_cast<int>(window.size()) - behind;
  Probe probe;
  probe.cache = std::make_unique<model::KvCache>(
      llama.spec(), static_cast<int>(window.size()));
  probe.behind.assign(window.begin() + context, window.end());
  if (auto s = llama.PrefillInChunks(*probe.cache, window.first(context), 0)
                   .status();
      !s.ok()) {
    return s;
  }
  if (auto s = calibrator.Add(probe.cache->Tokens(0, context),
                              PositionsFrom(0, context));
      !s.ok()) {
    return s;
  }
  auto logits = LogitsBehind(llama, probe);
  if (!logits.ok()) return logits.status();
  probe.logits = *std::move(logits);
  return probe;
}

// Adds noise to one layer's K or V of the context. Returns the bytes before,
// row by row.
std::vector<std::byte> Disturb(Probe& probe, int layer, KvPart part,
                               double variance, std::mt19937* random) {
  const MutableKvView kv = probe.cache->Tokens(0, probe.cache->size());
  const KvShape& shape = kv.shape();
  std::normal_distribution<float> noise(
      0.0f, static_cast<float>(std::sqrt(variance)));
  std::vector<std::byte> before;
  std::vector<float> row(shape.head_dim);
  for (int head = 0; head < shape.kv_heads; ++head) {
    for (int token = 0; token < shape.tokens; ++token) {
      std::byte* at = kv.At(layer, part, head, token);
      before.insert(before.end(), at, at + shape.head_bytes());
      LoadFloats(shape.dtype, at, row.size(), row.data());
      for (float& x : row) x += noise(*random);
      StoreFloats(shape.dtype, row.data(), row.size(), at);
    }
  }
  return before;
}

void Restore(Probe& probe, int layer, KvPart part,
             const std::vector<std::byte>& before) {
  const MutableKvView kv = probe.cache->Tokens(0, probe.cache->size());
  const KvShape& shape = kv.shape();
  const std::byte* from = before.data();
  for (int head = 0; head < shape.kv_heads; ++head) {
    for (int token = 0; token < shape.tokens; ++token) {
      std::memcpy(kv.At(layer, part, head, token), from, shape.head_bytes());
      from += shape.head_bytes();
    }
  }
}

// The divergence of the logits, in nats, for one unit of squared error in a
// layer's K or V.
absl::StatusOr<double> CostOf(const model::Llama& llama, int layer, KvPart part,
                              double variance, std::vector<Probe>& probes) {
  std::mt19937 random(layer * 2 + static_cast<int>(part) + 1);
  double divergence = 0;
  for (Probe& probe : probes) {
    const std::vector<std::byte> before =
        Disturb(probe, layer, part, kNoise * variance, &random);
    const auto logits = LogitsBehind(llama, probe);
    Restore(probe, layer, part, before);
    if (!logits.ok()) return logits.status();
    divergence +=
        model::MeanDivergence(probe.logits, *logits, llama.config().vocab_size);
  }
  return divergence / static_cast<double>(probes.size()) / (kNoise * variance);
}

// The weights of the layers' K and V in the error, [layer][K|V].
std::vector<double> WeightsOf(std::vector<double> costs) {
  const double mean = std::accumulate(costs.begin(), costs.end(), 0.0) /
                      static_cast<double>(costs.size());
  for (double& cost : costs) {
    cost = mean > 0 ? std::max(cost, kWeightMin * mean) : 1.0;
  }
  return costs;
}

// The tokens of window `i`, when the text is cut into `windows` about equal
// windows.
absl::Span<const int32_t> WindowOf(absl::Span<const int32_t> tokens, size_t i,
                                   size_t windows) {
  const size_t begin = i * tokens.size() / windows;
  return tokens.subspan(begin, (i + 1) * tokens.size() / windows - begin);
}

// INVALID_ARGUMENT when the tokens are too few. At least three quarters of each
// window are context, and only the context calibrates.
absl::Status CheckEnough(const model::Llama& llama,
                         const codec::Calibrator& calibrator, size_t tokens) {
  const size_t needed = (calibrator.TokensMin() * 4 + 2) / 3;
  if (tokens >= needed) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "the text has ", tokens, " tokens; calibrating ", llama.spec().name,
      " needs at least ", needed, ", better some thousands: add text"));
}

}  // namespace

absl::StatusOr<codec::StoredCalibration> Calibrate(
    const model::Llama& llama, absl::Span<const int32_t> tokens,
    const CalibrationRun& run) {
  auto calibrator = codec::Calibrator::Create(llama.spec());
  if (!calibrator.ok()) return calibrator.status();
  if (auto s = CheckEnough(llama, *calibrator, tokens.size()); !s.ok()) {
    return s;
  }
  constexpr size_t kWindow = kContextTokens + kBehindTokens;
  const size_t windows = (tokens.size() + kWindow - 1) / kWindow;
  const int layers = llama.spec().num_layers;
  const size_t probed = 2 * static_cast<size_t>(layers) *
                        std::min(windows, kProbesMax) * kBehindTokens;
  size_t done = 0;
  const auto advance = [&](size_t count) {
    done += count;
    run.on_progress(
        std::min(1.0, static_cast<double>(done) /
                          static_cast<double>(tokens.size() + probed)),
        static_cast<int>(done));
  };
  std::vector<Probe> probes;
  for (size_t i = 0; i < windows; ++i) {
    const absl::Span<const int32_t> window = WindowOf(tokens, i, windows);
    auto probe = Read(llama, window, *calibrator);
    if (!probe.ok()) return probe.status();
    if (probes.size() < kProbesMax) probes.push_back(*std::move(probe));
    advance(window.size());
  }
  std::vector<double> costs;
  for (int layer = 0; layer < layers; ++layer) {
    for (const KvPart part : {KvPart::kK, KvPart::kV}) {
      const double variance =
          std::max(calibrator->Variance(layer, part), 1e-12);
      const auto cost = CostOf(llama, layer, part, variance, probes);
      if (!cost.ok()) return cost.status();
      costs.push_back(*cost);
      advance(probes.size() * kBehindTokens);
    }
  }
  return calibrator->Finish(
      {.base_bits = run.base_bits, .weights = WeightsOf(std::move(costs))});
}

}  // namespace kdn::cli
