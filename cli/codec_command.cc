// kdn codec: makes calibrations of models, and describes them.
#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "cli/calibration_files.h"
#include "cli/calibration_run.h"
#include "cli/commands.h"
#include "cli/level_figures.h"
#include "cli/progress_bar.h"
#include "cli/text_files.h"
#include "codec/calibration/calibration_format.h"
#include "codec/format/stream_layout.h"
#include "kv/chunk_key.h"
#include "kv/clock.h"
#include "model/llama.h"
#include "model/tokenizer.h"

namespace kdn::cli {
namespace {

namespace fs = std::filesystem;

std::string NameOf(int step) {
  return std::string(Name(codec::LadderTo(Level::kBase2)[step]));
}

struct CalibrateFlags {
  std::string model;
  std::vector<std::string> texts;
  std::string out;
  std::string dtype = "bf16";
  int windows = 32;
  double base_bits = CalibrationRun().base_bits;
  bool force = false;
};

// Checks the output path, before the model reads the text for a long time.
absl::Status CheckOut(const CalibrateFlags& flags) {
  const fs::path out = flags.out;
  std::error_code error;
  if (out.extension() != kCalibrationSuffix) {
    return absl::InvalidArgumentError(
        absl::StrCat("-o ", flags.out, ": nodes read files whose names end in ",
                     kCalibrationSuffix));
  }
  const fs::path directory = fs::absolute(out, error).parent_path();
  if (!fs::is_directory(directory, error)) {
    return absl::NotFoundError(absl::StrCat(
        "-o ", flags.out, ": there is no directory ", directory.string()));
  }
  if (fs::exists(out, error) && !flags.force) {
    return absl::AlreadyExistsError(
        absl::StrCat(flags.out, " exists: --force replaces it"));
  }
  return absl::OkStatus();
}

std::string TextOf(absl::Time time) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", time, absl::UTCTimeZone());
}

absl::StatusOr<codec::StoredCalibration> CalibrateWithProgress(
    const model::Llama& llama, absl::Span<const std::vector<int32_t>> windows,
    double base_bits) {
  ProgressBar bar;
  CalibrationRun run;
  run.base_bits = base_bits;
  run.on_progress = [&](double share, int done) {
    bar.Show(llama.spec().name, share, done);
  };
  auto stored = Calibrate(llama, windows, run);
  bar.Clear();
  return stored;
}

// The windows of a text. Some are held out, to measure the levels on KV that
// the calibration has not seen.
struct Windows {
  std::vector<std::vector<int32_t>> calibrated;
  std::vector<std::vector<int32_t>> held_out;
};

absl::StatusOr<Windows> ReadWindows(const CalibrateFlags& flags,
                                    const model::Tokenizer& tokenizer) {
  constexpr size_t kHeldOut = 2;
  auto all = CalibrationWindows(flags.texts, tokenizer,
                                flags.windows + static_cast<int>(kHeldOut));
  if (!all.ok()) return all.status();
  Windows windows;
  for (size_t i = 0; i < all->size(); ++i) {
    // With few windows, each of them is needed to calibrate.
    const bool held_out = all->size() >= 4 * kHeldOut &&
                          (i == all->size() / 3 || i == 2 * all->size() / 3);
    (held_out ? windows.held_out : windows.calibrated)
        .push_back(std::move((*all)[i]));
  }
  return windows;
}

// Prints what the levels cost and lose.
absl::Status PrintFigures(
    const model::Llama& llama, const Windows& windows,
    const std::shared_ptr<const codec::Calibration>& calibration) {
  const bool seen = windows.held_out.empty();
  const auto measured = seen ? absl::MakeConstSpan(windows.calibrated).last(1)
                             : absl::MakeConstSpan(windows.held_out);
  const auto figures = MeasureLevels(llama, measured, calibration);
  if (!figures.ok()) return figures.status();
  std::printf("  %-7s %14s %16s\n", "level",
              absl::StrCat("bits of ", 8 * SizeOf(llama.spec().dtype)).c_str(),
              "mean KL, nats");
  for (int step = 0; step < codec::kLadderSteps; ++step) {
    const LevelFigures& level = (*figures)[step];
    std::printf("  %-7s %14.2f %16.4f\n", NameOf(step).c_str(),
                level.bits_per_value, level.divergence);
  }
  std::printf("measured on %zu windows that the calibration has %s\n",
              measured.size(), seen ? "seen" : "not seen");
  return absl::OkStatus();
}

absl::Status RunCalibrate(const CalibrateFlags& flags) {
  if (absl::Status s = CheckOut(flags); !s.ok()) return s;
  model::Llama::Options options;
  options.kv_dtype = ParseDtype(flags.dtype).value();
  const auto llama = model::Llama::Load(flags.model, options);
  if (!llama.ok()) return llama.status();
  const auto tokenizer = model::Tokenizer::Load(flags.model);
  if (!tokenizer.ok()) return tokenizer.status();

  const absl::Time begin = SteadyNow();
  const auto windows = ReadWindows(flags, *tokenizer);
  if (!windows.ok()) return windows.status();
  auto stored =
      CalibrateWithProgress(**llama, windows->calibrated, flags.base_bits);
  if (!stored.ok()) return stored.status();
  stored->info.created = absl::Now();
  const std::vector<std::byte> bytes = codec::WriteCalibration(*stored);
  const auto calibration = codec::ParseCalibration(bytes);
  if (!calibration.ok()) return calibration.status();
  if (absl::Status s = SaveCalibration(bytes, flags.out); !s.ok()) return s;

  size_t tokens = 0;
  for (const auto& window : windows->calibrated) tokens += window.size();
  std::printf("%s calibrated on %zu tokens in %zu windows in %.1f s\n",
              (*llama)->spec().name.c_str(), tokens, windows->calibrated.size(),
              absl::ToDoubleSeconds(SteadyNow() - begin));
  if (absl::Status s = PrintFigures(**llama, *windows, *calibration); !s.ok()) {
    return s;
  }
  std::printf(
      "%s: %zu bytes, calibration %s of model %s\n"
      "next: copy it into the directory that `calibrations:` names in the "
      "cluster's configuration, on every node, and restart the nodes one after "
      "the other (docs/operations.md)\n",
      flags.out.c_str(), bytes.size(), ShortHex((*calibration)->id()).c_str(),
      ShortHex((*calibration)->model()).c_str());
  return absl::OkStatus();
}

using Bands = std::vector<std::array<codec::BandStep, codec::kLadderSteps>>;

// The bands of all streams, one stream after the other.
Bands BandsOf(const codec::Calibration& calibration, int groups) {
  Bands all;
  for (int layer = 0; layer < calibration.geometry().layers; ++layer) {
    for (const KvPart part : {KvPart::kK, KvPart::kV}) {
      for (int group = 0; group < groups; ++group) {
        const Bands& bands = calibration.Of(layer, part, group).bands;
        all.insert(all.end(), bands.begin(), bands.end());
      }
    }
  }
  return all;
}

void PrintBands(const Bands& bands) {
  std::printf("bands of %d components, by the number of values per symbol:\n",
              codec::kBandComponents);
  std::printf("  %-8s %8s %8s %8s %8s\n", "level", "absent", "1", "2", "4");
  for (int step = 0; step < codec::kLadderSteps; ++step) {
    std::printf("  %-8s", NameOf(step).c_str());
    for (const codec::BandMode mode :
         {codec::BandMode::kAbsent, codec::BandMode::kSingle,
          codec::BandMode::kPair, codec::BandMode::kQuad}) {
      std::printf(" %8td",
                  std::count_if(bands.begin(), bands.end(), [&](const auto& b) {
                    return b[step].mode == mode;
                  }));
    }
    std::printf("\n");
  }
}

absl::Status PrintInfo(const std::string& path) {
  const absl::StatusOr<CalibrationFile> file = LoadCalibration(path);
  if (absl::IsDataLoss(file.status())) {
    return absl::DataLossError(
        absl::StrCat(file.status().message(),
                     ": copy the file again, or make a new one with "
                     "`kdn codec calibrate`"));
  }
  if (!file.ok()) return file.status();
  const codec::Calibration& calibration = *file->calibration;
  const codec::Calibration::Geometry& geometry = calibration.geometry();
  const int dim = calibration.Of(0, KvPart::kK, 0).dim();
  const int groups = geometry.kv_heads * geometry.head_dim / dim;
  std::error_code error;
  std::printf("file         %s, %ju bytes\n", path.c_str(),
              fs::file_size(path, error));
  std::printf("calibration  %s\n", Hex(calibration.id()).c_str());
  std::printf("model        %s\n", Hex(calibration.model()).c_str());
  if (calibration.created() > absl::UnixEpoch()) {
    std::printf("made         %s\n", TextOf(calibration.created()).c_str());
  }
  std::printf("geometry     %d layers, %d KV heads of %d dimensions\n",
              geometry.layers, geometry.kv_heads, geometry.head_dim);
  std::printf("streams      %d of %d dimensions\n",
              2 * geometry.layers * groups, dim);
  std::printf("tables       %zu\n", calibration.tables().size());
  PrintBands(BandsOf(calibration, groups));
  return absl::OkStatus();
}

void AddCalibrate(CLI::App& codec, Program& program) {
  CLI::App* command = codec.add_subcommand(
      "calibrate",
      "Make a model's calibration, for smaller levels base to base+2\n\n"
      "  kdn codec calibrate --text model/recall/facts -o recall.kdncal\n"
      "  kdn codec calibrate --model ~/llama --text book.txt -o "
      "llama.kdncal\n\n"
      "The model reads some 35,000 tokens of text like the text that you "
      "will store; the file describes the KV that results. "
      "Then copy the file, on every node, into the directory "
      "that `calibrations:` names in the cluster's configuration.");
  auto flags = std::make_shared<CalibrateFlags>();
  command->add_option("--model", flags->model,
                      "Hugging Face checkpoint directory (default: the shipped "
                      "model)");
  command
      ->add_option(
          "--text", flags->texts,
          "files, or directories of files; better several kinds of text")
      ->required();
  command
      ->add_option("-o,--out", flags->out,
                   "file to write; its name ends in .kdncal")
      ->required();
  command
      ->add_option("--windows", flags->windows,
                   "windows of 1,088 tokens to read, spread over the texts. "
                   "Fewer than 30 make larger levels")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command
      ->add_option("--base-bits", flags->base_bits,
                   "bits per value to aim at, at the base level")
      ->check(CLI::Range(0.2, 2.8))
      ->capture_default_str();
  command
      ->add_option("--kv-dtype", flags->dtype,
                   "dtype of the engine's KV cache; the calibration serves "
                   "this dtype only")
      ->check(CLI::IsMember({"bf16", "fp16", "fp32"}))
      ->capture_default_str();
  command->add_flag("--force", flags->force, "replace a file that exists");
  command->callback([&program, flags] {
    if (flags->model.empty()) flags->model = DefaultModelDirectory(program);
    program.exit_code = Report(RunCalibrate(*flags));
  });
}

void AddInfo(CLI::App& codec, Program& program) {
  CLI::App* command = codec.add_subcommand(
      "info",
      "Describe a calibration and check that the file is whole\n\n"
      "  kdn codec info recall.kdncal\n\n"
      "Nodes log the same digests of calibration and model when they start.");
  auto path = std::make_shared<std::string>();
  command->add_option("FILE", *path, "a .kdncal file")->required();
  command->callback(
      [&program, path] { program.exit_code = Report(PrintInfo(*path)); });
}

}  // namespace

void AddCodecCommand(CLI::App& app, Program& program) {
  CLI::App* command =
      app.add_subcommand("codec",
                         "Make and describe calibrations of models, "
                         "for the levels base to base+2");
  command->require_subcommand(1);
  AddCalibrate(*command, program);
  AddInfo(*command, program);
}

}  // namespace kdn::cli
