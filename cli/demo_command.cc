// kdn demo: stores and delivers knowledge on three nodes that it starts, kills
// one, and compares the answers.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cli/commands.h"
#include "cli/demo.h"
#include "cli/demo_report.h"
#include "cli/temp_directory.h"
#include "cli/text_files.h"

namespace kdn::cli {
namespace {

namespace fs = std::filesystem;

struct DemoOptions {
  std::string model;  // empty: the default
  std::string chat_template;
  bool offline = false;
  std::string out = "demo.json";
};

// The directory that scripts/model fills.
fs::path FetchedModelDirectory() {
  return CacheDirectory() / "models/smollm2-135m-instruct";
}

fs::path ChosenModel(const DemoOptions& options, const Program& program) {
  if (options.offline) return ShippedModelDirectory(program);
  if (!options.model.empty()) return options.model;
  if (const char* chosen = std::getenv("KDN_MODEL")) return chosen;
  return FetchedModelDirectory();
}

absl::StatusOr<DemoJob> JobOf(const DemoOptions& options,
                              const Program& program) {
  const fs::path model = ChosenModel(options, program);
  if (!fs::exists(model / "config.json")) {
    return absl::NotFoundError(absl::StrCat(
        "there is no model in ", model.string(),
        ": run scripts/model, which fetches one, name another checkpoint with "
        "--model, or use the small shipped model with --offline"));
  }
  if (fs::exists(model / "questions.jsonl")) {
    return DemoJob{model, model / "questions.jsonl", false, "", 8};
  }
  return DemoJob{model, fs::path(ShippedExamples(program)) / "questions.jsonl",
                 true, options.chat_template, 24};
}

// Prints the result, and writes the numbers to `out`.
absl::Status Show(const DemoResult& result, const std::string& out,
                  std::ofstream& numbers) {
  std::printf("\n%s%s", DemoAnswers(result).c_str(), DemoTable(result).c_str());
  // A token may end within a character, so an answer may be no UTF-8.
  numbers << DemoJson(result).dump(1, ' ', false,
                                   nlohmann::json::error_handler_t::replace)
          << '\n';
  numbers.close();
  if (numbers.fail()) {
    return absl::UnavailableError(absl::StrCat("cannot write ", out));
  }
  std::printf("numbers: %s\n", out.c_str());
  const std::vector<std::string> failures = DemoFailures(result);
  return failures.empty() ? absl::OkStatus()
                          : absl::InternalError(absl::StrJoin(failures, "; "));
}

absl::Status RunDemo(const Program& program, const DemoOptions& options) {
  absl::StatusOr<DemoJob> job = JobOf(options, program);
  if (!job.ok()) return job.status();
  std::ofstream numbers(options.out);
  if (!numbers) {
    return absl::UnavailableError(absl::StrCat("cannot write ", options.out));
  }
  absl::StatusOr<TempDirectory> directory =
      TempDirectory::Create(fs::temp_directory_path(), "kdn-demo-");
  if (!directory.ok()) return directory.status();
  absl::Status status;
  {
    Demo demo(program.path, *std::move(job), directory->path());
    status = demo.Run();
    if (status.ok()) status = Show(demo.result(), options.out, numbers);
  }
  if (!status.ok()) {
    std::fprintf(stderr, "logs and data are kept in %s\n",
                 directory->path().c_str());
    directory->Keep();
  }
  return status;
}

}  // namespace

void AddDemoCommand(CLI::App& app, Program& program) {
  CLI::App* command = app.add_subcommand(
      "demo",
      "Show the whole job on three nodes that it starts: inject, ask, kill\n\n"
      "  kdn demo                 with the model that scripts/model fetches\n"
      "  kdn demo --model DIR     with another chat model\n"
      "  kdn demo --offline       with the small shipped model\n\n"
      "Injects a small handbook and parts of the project's documents. Asks "
      "questions without the texts, with the texts prefilled, and with their "
      "KV from the KDN, at lossless and at a smaller level. Then kills one "
      "node and asks again. An answer is right if it has the value that the "
      "question asks for. Wrong answers of the model are shown; the demo fails "
      "when a chunk is not delivered or when KV at lossless changes a token.");
  auto options = std::make_shared<DemoOptions>();
  CLI::Option* const model = command->add_option(
      "--model", options->model,
      "Hugging Face checkpoint directory of a chat model (default: the model "
      "of scripts/model, in ~/.cache/kdn). A directory with questions.jsonl "
      "is asked these questions, in the form of the shipped model");
  CLI::Option* const chat = command->add_option(
      "--template", options->chat_template,
      "file with the model's chat template, which has "
      "{knowledge} and {question} in it (default: ChatML or "
      "Llama 3, as the tokenizer says)");
  command
      ->add_flag("--offline", options->offline,
                 "use the shipped recall model, which only looks up facts and "
                 "answers in one token; nothing is fetched")
      ->excludes(model)
      ->excludes(chat);
  command->add_option("--out", options->out, "JSON file for the numbers")
      ->capture_default_str();
  command->callback([&program, options] {
    program.exit_code = Report(RunDemo(program, *options));
  });
}

}  // namespace kdn::cli
