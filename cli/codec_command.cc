// kdn codec: makes calibrations of models, and describes them.
#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "cli/calibration_files.h"
#include "cli/calibration_run.h"
#include "cli/cluster_calibration.h"
#include "cli/commands.h"
#include "cli/connect.h"
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
  int windows = kWindows;
  double base_bits = CalibrationRun().base_bits;
  bool force = false;
  bool store = false;
  GatewayToDial gateway;
};

// Checks the output path, before the model reads the text for a long time.
absl::Status CheckOut(const CalibrateFlags& flags) {
  if (flags.out.empty()) {
    if (flags.store) return absl::OkStatus();
    return absl::InvalidArgumentError(
        "name a file with -o, or store the calibration in a running cluster "
        "with --store");
  }
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

absl::Status Store(const GatewayToDial& gateway,
                   absl::Span<const std::byte> file) {
  const auto client = ConnectTo(gateway);
  if (!client.ok()) return client.status();
  return StoreInCluster(**client, file);
}

absl::Status StoreFile(const GatewayToDial& gateway, const std::string& path) {
  const absl::StatusOr<CalibrationFile> file = LoadCalibration(path);
  if (!file.ok()) return file.status();
  return Store(gateway, file->bytes);
}

// What a calibration says about itself.
void PrintEntries(const std::map<std::string, std::string>& entries) {
  for (const auto& [name, value] : entries) {
    std::printf("%-12s %s\n", name.c_str(), absl::CHexEscape(value).c_str());
  }
}

absl::Status RunCalibrate(const CalibrateFlags& flags) {
  std::vector<std::string> texts = flags.texts;
  if (const std::string standard = StandardTexts();
      texts.empty() && !standard.empty()) {
    texts = {standard};
  }
  if (texts.empty()) {
    return absl::InvalidArgumentError(
        "name texts to calibrate on with --text, or run scripts/texts");
  }
  if (absl::Status s = CheckOut(flags); !s.ok()) return s;
  if (flags.store) {  // before the model reads the text for a long time
    const auto client = ConnectTo(flags.gateway);
    if (!client.ok()) return client.status();
  }
  model::Llama::Options options;
  options.kv_dtype = ParseDtype(flags.dtype).value();
  const auto llama = model::Llama::Load(flags.model, options);
  if (!llama.ok()) return llama.status();
  const auto tokenizer = model::Tokenizer::Load(flags.model);
  if (!tokenizer.ok()) return tokenizer.status();

  const absl::Time begin = SteadyNow();
  auto windows =
      CalibrationWindows(texts, *tokenizer, flags.windows + kHeldOutWindows);
  if (!windows.ok()) return windows.status();
  const auto stored =
      MakeCalibration(**llama, HoldOut(*std::move(windows)), flags.base_bits);
  if (!stored.ok()) return stored.status();
  const std::vector<std::byte> bytes = codec::WriteCalibration(*stored);
  const auto calibration = codec::ParseCalibration(bytes);
  if (!calibration.ok()) return calibration.status();
  if (!flags.out.empty()) {
    if (absl::Status s = SaveCalibration(bytes, flags.out); !s.ok()) return s;
  }

  std::printf("%s calibrated in %.1f s\n", (*llama)->spec().name.c_str(),
              absl::ToDoubleSeconds(SteadyNow() - begin));
  PrintEntries(stored->info.others);
  std::printf("%zu bytes, calibration %s of model %s%s%s\n", bytes.size(),
              ShortHex((*calibration)->id()).c_str(),
              ShortHex((*calibration)->model()).c_str(),
              flags.out.empty() ? "" : ": ", flags.out.c_str());
  if (flags.store) return Store(flags.gateway, bytes);
  std::printf(
      "next: `kdn codec store %s` stores it on every node of a running "
      "cluster\n",
      flags.out.c_str());
  return absl::OkStatus();
}

using Bands = std::vector<std::array<codec::BandStep, codec::kLadderSteps>>;

// The bands of all streams and token classes, one after the other.
Bands BandsOf(const codec::StoredCalibration& calibration) {
  Bands all;
  for (const codec::StoredTransform& stream : calibration.streams) {
    for (const codec::TokenClass& token_class : stream.classes) {
      all.insert(all.end(), token_class.bands.begin(), token_class.bands.end());
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
  std::error_code error;
  std::printf("file         %s, %ju bytes\n", path.c_str(),
              fs::file_size(path, error));
  std::printf("calibration  %s\n", Hex(calibration.id()).c_str());
  std::printf("model        %s\n", Hex(calibration.model()).c_str());
  if (calibration.created() > absl::UnixEpoch()) {
    std::printf("made         %s\n", TextOf(calibration.created()).c_str());
  }
  const auto stored = codec::ReadCalibration(file->bytes);
  if (!stored.ok()) return stored.status();
  PrintEntries(stored->info.others);
  std::printf("geometry     %d layers, %d KV heads of %d dimensions\n",
              geometry.layers, geometry.kv_heads, geometry.head_dim);
  const codec::StoredTransform& first = stored->streams.front();
  std::printf("streams      %zu of %zu dimensions%s\n", stored->streams.size(),
              first.mean.size(),
              stored->joint_heads > 0 ? ", K and V together" : "");
  std::printf("classes      %zu, of tokens\n", first.classes.size());
  std::printf("tables       %zu\n", calibration.tables().size());
  PrintBands(BandsOf(*stored));
  return absl::OkStatus();
}

void AddCalibrate(CLI::App& codec, Program& program) {
  CLI::App* command = codec.add_subcommand(
      "calibrate",
      "Make a model's calibration, for smaller levels base to base+2, "
      "and archive\n\n"
      "  kdn codec calibrate --text model/recall/facts -o recall.kdncal\n"
      "  kdn codec calibrate --model ~/llama --text book.txt --store\n\n"
      "The model reads some 35,000 tokens of text like the text that you will "
      "store; the calibration describes the KV that results. --store gives it "
      "to every node of a running cluster; `kdn inject` makes one by itself "
      "when the cluster has none.");
  auto flags = std::make_shared<CalibrateFlags>();
  command->add_option("--model", flags->model,
                      "Hugging Face checkpoint directory (default: the shipped "
                      "model)");
  command->add_option("--text", flags->texts,
                      "files, or directories of files; better several kinds of "
                      "text (default: the texts that scripts/texts fetches)");
  command->add_option("-o,--out", flags->out,
                      "file to write; its name ends in .kdncal");
  command->add_flag("--store", flags->store,
                    "store the calibration in the cluster");
  AddGatewayOptions(*command, flags->gateway);
  command
      ->add_option("--windows", flags->windows,
                   "windows of 1,088 tokens to read, spread over the texts. "
                   "Fewer than 30 give larger errors")
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

void AddStore(CLI::App& codec, Program& program) {
  CLI::App* command = codec.add_subcommand(
      "store",
      "Store a calibration's file on every node of a running cluster\n\n"
      "  kdn codec store recall.kdncal\n\n"
      "Nodes that are down get it when they are up again. New chunks of a "
      "model are coded with its calibration that was made last.");
  auto path = std::make_shared<std::string>();
  auto gateway = std::make_shared<GatewayToDial>();
  command->add_option("FILE", *path, "a .kdncal file")->required();
  AddGatewayOptions(*command, *gateway);
  command->callback([&program, path, gateway] {
    program.exit_code = Report(StoreFile(*gateway, *path));
  });
}

}  // namespace

void AddCodecCommand(CLI::App& app, Program& program) {
  CLI::App* command =
      app.add_subcommand("codec",
                         "Make and describe calibrations of models, "
                         "for the levels base to base+2 and archive");
  command->require_subcommand(1);
  AddCalibrate(*command, program);
  AddInfo(*command, program);
  AddStore(*command, program);
}

}  // namespace kdn::cli
