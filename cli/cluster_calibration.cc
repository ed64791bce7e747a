#include "cli/cluster_calibration.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <iterator>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "cli/level_figures.h"
#include "cli/progress_bar.h"
#include "cli/text_files.h"
#include "codec/calibration/calibration_format.h"
#include "codec/format/stream_layout.h"
#include "kv/digest.h"

namespace kdn::cli {
namespace {

namespace fs = std::filesystem;

// The most text of injected files that is looked at: some hundred times as much
// as the windows take.
constexpr size_t kTextBytesMax = 16 << 20;

absl::StatusOr<bool> HasCalibration(rpc::Client& client,
                                    const ModelFingerprint& model) {
  const auto all = client.Calibrations();
  if (!all.ok()) return all.status();
  return std::any_of(
      all->begin(), all->end(),
      [&](const CalibrationEntry& entry) { return entry.model == model; });
}

std::string DigestOf(absl::Span<const std::vector<int32_t>> windows) {
  std::vector<uint8_t> bytes;
  for (const std::vector<int32_t>& window : windows) {
    const auto* from = reinterpret_cast<const uint8_t*>(window.data());
    bytes.insert(bytes.end(), from, from + window.size() * sizeof(int32_t));
  }
  const std::array<uint8_t, 32> digest = Sha256Of(bytes);
  return absl::BytesToHexString(
      {reinterpret_cast<const char*>(digest.data()), digest.size()});
}

std::string Warning(const CalibrationText& text) {
  return text.windows.size() < size_t{kWindowsEnough}
             ? absl::StrCat(", fewer than ", kWindowsEnough,
                            ": more text gives smaller errors")
             : "";
}

// What the levels cost and lose on the held-out windows, in words.
absl::StatusOr<std::string> FiguresOf(const model::Llama& llama,
                                      const CalibrationText& text,
                                      const codec::StoredCalibration& stored) {
  const auto calibration =
      codec::ParseCalibration(codec::WriteCalibration(stored));
  if (!calibration.ok()) return calibration.status();
  const bool seen = text.held_out.empty();
  const auto measured = seen ? absl::MakeConstSpan(text.windows).last(1)
                             : absl::MakeConstSpan(text.held_out);
  const auto figures = MeasureLevels(llama, measured, *calibration);
  if (!figures.ok()) return figures.status();
  std::vector<std::string> levels;
  for (size_t i = 0; i < kCalibratedLevels.size(); ++i) {
    levels.push_back(absl::StrFormat(
        "%s %.2f bits, KL %.4f", std::string(Name(kCalibratedLevels[i])),
        (*figures)[i].bits_per_value, (*figures)[i].divergence));
  }
  return absl::StrCat(absl::StrJoin(levels, "; "), ", on ", measured.size(),
                      seen ? " window that the calibration has seen"
                           : " windows that the calibration has not seen");
}

// Windows of the texts to be injected, and as many of the standard texts.
absl::StatusOr<std::vector<std::vector<int32_t>>> InjectedWindows(
    const std::vector<fs::path>& injected, const model::Tokenizer& tokenizer) {
  std::string own;
  for (const fs::path& file : injected) {
    const absl::StatusOr<std::string> text = ReadText(file);
    if (!text.ok()) return text.status();
    if (text->find('\0') == std::string::npos) own += *text;
    if (own.size() >= kTextBytesMax) break;
  }
  const auto tokens = tokenizer.EncodeBeginning(own);
  if (!tokens.ok()) return tokens.status();
  constexpr int kAll = kWindows + kHeldOutWindows;
  const std::string standard = StandardTexts();
  std::vector<std::vector<int32_t>> windows =
      CalibrationWindows({*tokens}, standard.empty() ? kAll : kAll / 2);
  if (standard.empty()) return windows;
  auto others = CalibrationWindows(std::vector{standard}, tokenizer,
                                   kAll - static_cast<int>(windows.size()));
  if (!others.ok()) return others.status();
  std::move(others->begin(), others->end(), std::back_inserter(windows));
  return windows;
}

}  // namespace

absl::StatusOr<codec::StoredCalibration> MakeCalibration(
    const model::Llama& llama, const CalibrationText& text, double base_bits) {
  ProgressBar bar;
  CalibrationRun run;
  run.base_bits = base_bits;
  run.on_progress = [&](double share, int done) {
    bar.Show(llama.spec().name, share, done);
  };
  auto stored = Calibrate(llama, text.windows, run);
  bar.Clear();
  if (!stored.ok()) return stored;
  const auto figures = FiguresOf(llama, text, *stored);
  if (!figures.ok()) return figures.status();
  stored->info.created = absl::Now();
  stored->info.others = {
      {"tokens", absl::StrCat(text.tokens(), " in ", text.windows.size(),
                              " windows", Warning(text))},
      {"text", absl::StrCat("sha256:", DigestOf(text.windows))},
      {"levels", *figures}};
  return stored;
}

absl::Status StoreInCluster(rpc::Client& client,
                            absl::Span<const std::byte> file) {
  const auto receipt = client.StoreCalibration(file);
  if (!receipt.ok()) return receipt.status();
  std::printf("calibration %s is stored on %s\n", ShortHex(receipt->id).c_str(),
              absl::StrJoin(receipt->holders, ", ",
                            [](std::string* out, const NodeId& node) {
                              out->append(node.name());
                            })
                  .c_str());
  return absl::OkStatus();
}

absl::StatusOr<std::string> TextToCalibrateOn(
    const std::vector<fs::path>& files) {
  std::string all;
  for (const fs::path& file : files) {
    absl::StatusOr<std::string> text = ReadText(file);
    if (!text.ok()) return text.status();
    if (text->find('\0') == std::string::npos) all += *text;
    if (all.size() >= kTextBytesMax) break;
  }
  return all;
}

absl::Status EnsureCalibration(const model::Llama& llama,
                               const model::Tokenizer& tokenizer,
                               rpc::Client& client, LevelSet levels,
                               const InjectCalibration& how,
                               const std::vector<fs::path>& injected) {
  if (how.off || !codec::HasTransformCoded(levels)) return absl::OkStatus();
  // A node of an older version takes no calibration, but has the built-in one.
  if (!client.KeepsCalibrations()) return absl::OkStatus();
  const auto has = HasCalibration(client, FingerprintOf(llama.spec()));
  if (!has.ok() || *has) return has.status();
  const bool own = how.texts.empty();
  auto windows = own ? InjectedWindows(injected, tokenizer)
                     : CalibrationWindows(how.texts, tokenizer,
                                          kWindows + kHeldOutWindows);
  if (!windows.ok()) return windows.status();
  const CalibrationText text = HoldOut(*std::move(windows));
  const auto enough = TokensToCalibrate(llama);
  if (!enough.ok()) return enough.status();
  const std::string& model = llama.spec().name;
  if (own && text.tokens() < *enough) {
    std::fprintf(
        stderr,
        "no calibration: the texts have %zu tokens, and a calibration of %s "
        "needs %zu; the built-in calibration is used, with larger errors "
        "(scripts/texts fetches more text, --calibrate FILE names it)\n",
        text.tokens(), model.c_str(), *enough);
    return absl::OkStatus();
  }
  std::fprintf(
      stderr,
      "the cluster has no calibration of %s, so one is made on %zu tokens of "
      "text%s and stored, this once (--no-calibrate leaves it out)\n",
      model.c_str(), text.tokens(), Warning(text).c_str());
  const auto stored = MakeCalibration(llama, text, CalibrationRun().base_bits);
  if (!stored.ok()) return stored.status();
  return StoreInCluster(client, codec::WriteCalibration(*stored));
}

}  // namespace kdn::cli
