#include "cli/calibration_run.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cli/text_files.h"
#include "codec/calibration/calibrator.h"
#include "model/kv_sensitivity.h"
#include "model/row_metrics.h"

namespace kdn::cli {
namespace {

// Windows that measure how sensitive the model is: each takes about as long as
// two that are only read.
constexpr size_t kProbesMax = 16;
// But one window of so many does it, because the importance of tokens is
// learned from those that are in the calibrator's sample.
constexpr size_t kProbeStepMax = 4;
// Draws of the tokens behind a window, for each of which gradients are
// computed.
constexpr int kDraws = 2;
// The least weight of a head, as a share of the mean weight: a few windows may
// miss what a head is for.
constexpr double kWeightMin = 1e-3;

std::vector<int32_t> PositionsFrom(int begin, int count) {
  std::vector<int32_t> positions(count);
  std::iota(positions.begin(), positions.end(), begin);
  return positions;
}

// A window that the model has read.
struct Probe {
  std::unique_ptr<model::KvCache> cache;  // of the context
  std::vector<int32_t> behind;            // the tokens behind the context
};

absl::StatusOr<Probe> Read(const model::Llama& llama,
                           absl::Span<const int32_t> window,
                           model::RowMetrics& metrics) {
  const int behind = static_cast<int>(BehindTokens(window.size()));
  const int context = static_cast<int>(window.size()) - behind;
  Probe probe;
  probe.cache = std::make_unique<model::KvCache>(
      llama.spec(), static_cast<int>(window.size()));
  probe.behind.assign(window.begin() + context, window.end());
  if (auto s =
          llama
              .PrefillInChunks(*probe.cache, window.first(context), 0, &metrics)
              .status();
      !s.ok()) {
    return s;
  }
  return probe;
}

// The weights of the heads in the error.
std::vector<double> WeightsOf(std::vector<double> sensitivity) {
  const double mean =
      std::accumulate(sensitivity.begin(), sensitivity.end(), 0.0) /
      static_cast<double>(sensitivity.size());
  for (double& x : sensitivity) {
    x = mean > 0 ? std::max(x / mean, kWeightMin) : 1.0;
  }
  return sensitivity;
}

// [layer][K|V][KV head].
std::vector<std::vector<double>> MetricsOf(const ModelSpec& spec,
                                           const model::RowMetrics& metrics) {
  std::vector<std::vector<double>> all;
  for (int layer = 0; layer < spec.num_layers; ++layer) {
    for (const KvPart part : {KvPart::kK, KvPart::kV}) {
      for (int head = 0; head < spec.num_kv_heads; ++head) {
        all.push_back(part == KvPart::kK ? metrics.OfK(layer, head)
                                         : metrics.OfV(layer, head));
      }
    }
  }
  return all;
}

// At least three quarters of each window are context, and only the context
// calibrates.
size_t TokensNeeded(int tokens_min) {
  return (static_cast<size_t>(tokens_min) * 4 + 2) / 3;
}

// INVALID_ARGUMENT when the tokens are too few.
absl::Status CheckEnough(const model::Llama& llama,
                         const codec::Calibrator& calibrator, size_t tokens) {
  const size_t needed = TokensNeeded(calibrator.TokensMin());
  if (tokens >= needed) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "the text has ", tokens, " tokens; calibrating ", llama.spec().name,
      " needs at least ", needed, ", better 30,000: add text"));
}

// The text of a file, or of all files of a directory.
absl::StatusOr<std::string> TextOf(const std::string& path) {
  const auto files = FilesOf({path});
  if (!files.ok()) return files.status();
  std::string all;
  for (const std::filesystem::path& file : *files) {
    const absl::StatusOr<std::string> text = ReadText(file);
    if (!text.ok()) return text.status();
    if (text->find('\0') != std::string::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat(file.string(), ": not a text file"));
    }
    all += *text;
  }
  return all;
}

size_t TokensOf(absl::Span<const std::vector<int32_t>> windows) {
  size_t tokens = 0;
  for (const auto& window : windows) tokens += window.size();
  return tokens;
}

// The number of windows of each text: in proportion to the lengths.
std::vector<int> Shares(absl::Span<const std::vector<int32_t>> texts,
                        int count) {
  std::vector<int> shares;
  for (const auto& text : texts) shares.push_back(text.empty() ? 0 : 1);
  int given = std::accumulate(shares.begin(), shares.end(), 0);
  const auto room = [&](size_t i) {
    return static_cast<double>(texts[i].size()) / (shares[i] + 1);
  };
  for (; given < count; ++given) {
    size_t neediest = 0;
    for (size_t i = 1; i < texts.size(); ++i) {
      if (room(i) > room(neediest)) neediest = i;
    }
    // The windows of a text do not overlap.
    if (room(neediest) < kCalibrationWindow) break;
    ++shares[neediest];
  }
  return shares;
}

}  // namespace

size_t CalibrationText::tokens() const { return TokensOf(windows); }

CalibrationText HoldOut(std::vector<std::vector<int32_t>> windows) {
  CalibrationText text;
  const size_t count = windows.size();
  for (size_t i = 0; i < count; ++i) {
    const bool held_out = count >= 4 * size_t{kHeldOutWindows} &&
                          (i == count / 3 || i == 2 * count / 3);
    (held_out ? text.held_out : text.windows).push_back(std::move(windows[i]));
  }
  return text;
}

std::string StandardTexts() {
  const std::filesystem::path directory =
      CacheDirectory() / "texts" / "calibration";
  std::error_code error;
  return std::filesystem::is_directory(directory, error) ? directory.string()
                                                         : "";
}

absl::StatusOr<size_t> TokensToCalibrate(const model::Llama& llama) {
  const auto tokens = codec::Calibrator::TokensMin(llama.spec());
  if (!tokens.ok()) return tokens.status();
  return TokensNeeded(*tokens);
}

std::vector<std::vector<int32_t>> CalibrationWindows(
    absl::Span<const std::vector<int32_t>> texts, int count) {
  std::vector<std::vector<int32_t>> windows;
  if (texts.empty()) return windows;
  const std::vector<int> shares = Shares(texts, count);
  for (size_t i = 0; i < texts.size(); ++i) {
    const size_t size = texts[i].size();
    const size_t length = std::min(size, kCalibrationWindow);
    for (int k = 0; k < shares[i]; ++k) {
      const size_t begin =
          (2 * k + 1) * size / (2 * static_cast<size_t>(shares[i])) -
          length / 2;
      const auto from = texts[i].begin() +
                        static_cast<ptrdiff_t>(std::min(begin, size - length));
      windows.emplace_back(from, from + static_cast<ptrdiff_t>(length));
    }
  }
  return windows;
}

absl::StatusOr<std::vector<std::vector<int32_t>>> CalibrationWindows(
    const std::vector<std::string>& paths, const model::Tokenizer& tokenizer,
    int count) {
  std::vector<std::vector<int32_t>> texts;
  for (const std::string& path : paths) {
    auto text = TextOf(path);
    if (!text.ok()) return text.status();
    auto tokens = tokenizer.EncodeBeginning(*text);
    if (!tokens.ok()) return tokens.status();
    texts.push_back(*std::move(tokens));
  }
  return CalibrationWindows(texts, count);
}

absl::StatusOr<codec::StoredCalibration> Calibrate(
    const model::Llama& llama, absl::Span<const std::vector<int32_t>> windows,
    const CalibrationRun& run) {
  auto calibrator = codec::Calibrator::Create(llama.spec());
  if (!calibrator.ok()) return calibrator.status();
  const size_t tokens = TokensOf(windows);
  if (auto s = CheckEnough(llama, *calibrator, tokens); !s.ok()) return s;
  const size_t probe_step = std::min<size_t>(
      kProbeStepMax, (windows.size() + kProbesMax - 1) / kProbesMax);
  size_t done = 0;
  model::RowMetrics metrics(llama);
  model::KvSensitivity sensitivity(llama);
  std::mt19937 random(1);
  for (size_t i = 0; i < windows.size(); ++i) {
    auto probe = Read(llama, windows[i], metrics);
    if (!probe.ok()) return probe.status();
    const int context = probe->cache->size();
    absl::StatusOr<std::vector<double>> importance = std::vector<double>();
    if (i % probe_step == 0) {
      importance =
          sensitivity.Add(*probe->cache, probe->behind, kDraws, random);
      if (!importance.ok()) return importance.status();
    }
    if (auto s = calibrator->Add(probe->cache->Tokens(0, context),
                                 PositionsFrom(0, context), *importance);
        !s.ok()) {
      return s;
    }
    done += windows[i].size();
    run.on_progress(
        static_cast<double>(i + 1) / static_cast<double>(windows.size()),
        static_cast<int>(done));
  }
  return calibrator->Finish({.base_bits = run.base_bits,
                             .weights = WeightsOf(sensitivity.Mean()),
                             .metrics = MetricsOf(llama.spec(), metrics)});
}

}  // namespace kdn::cli
