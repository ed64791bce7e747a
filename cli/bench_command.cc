#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "bench/blend_bench.h"
#include "bench/calls_bench.h"
#include "bench/codec_bench.h"
#include "bench/delivery_bench.h"
#include "bench/prefill_bench.h"
#include "cli/commands.h"

namespace kdn::cli {

namespace {

std::filesystem::path BuildOf(const Program& program) {
  return std::filesystem::path(program.path).parent_path().parent_path();
}

// A script in bench/ of the checkout that this program was built in.
absl::StatusOr<std::string> BenchScript(const Program& program,
                                        const std::string& name) {
  const auto script = BuildOf(program).parent_path() / "bench" / name;
  if (std::filesystem::exists(script)) return script.string();
  return absl::NotFoundError(
      absl::StrCat("bench/", name, " is not beside the build"));
}

// Draws the results of the benchmark `name` as build/<name>.svg. A picture that
// cannot be drawn is reported on stderr and leaves the command's exit code as
// it is.
void Draw(const Program& program, const std::string& name,
          const std::string& json) {
  const std::filesystem::path build = BuildOf(program);
  const std::string svg = build / absl::StrCat(name, ".svg");
  const absl::StatusOr<std::string> script =
      BenchScript(program, absl::StrCat("plot_", name, ".py"));
  if (!script.ok()) {
    const std::string reason(script.status().message());
    std::fprintf(stderr, "no picture: %s\n", reason.c_str());
    return;
  }
  // The Python of the tests comes first, because it sees Debian's packages.
  const std::filesystem::path tests = build / "venv" / "bin" / "python3";
  std::string python =
      std::filesystem::exists(tests) ? tests.string() : "python3";
  std::string arguments[] = {*script, json, svg};
  char* argv[] = {python.data(), arguments[0].data(), arguments[1].data(),
                  arguments[2].data(), nullptr};
  pid_t child = 0;
  int status =
      posix_spawnp(&child, python.c_str(), nullptr, nullptr, argv, environ);
  if (status == 0 && waitpid(child, &status, 0) != child) status = -1;
  if (status == 0) {
    std::fprintf(stderr, "drawn: %s\n", svg.c_str());
  } else {
    std::fprintf(stderr, "no picture: %s %s %s %s failed\n", python.c_str(),
                 script->c_str(), json.c_str(), svg.c_str());
  }
}

absl::Status RunCodec(const Program& program, bench::CodecOptions options,
                      bool lmcache) {
  if (options.model.empty()) options.model = DefaultModelDirectory(program);
  if (lmcache) {
    const absl::StatusOr<std::string> script =
        BenchScript(program, "lmcache_cachegen.py");
    if (!script.ok()) return script.status();
    options.lmcache = {"python3", *script};
  }
  if (absl::Status s = bench::RunCodecBench(options); !s.ok()) return s;
  if (!options.json.empty() && !options.speeds_only) {
    Draw(program, "codec", options.json);
  }
  return absl::OkStatus();
}

void AddCodecBench(CLI::App& bench, Program& program) {
  CLI::App* command = bench.add_subcommand(
      "codec",
      "Measure size, fidelity and speed of the levels, next to CacheGen and "
      "KIVI\n\n"
      "  kdn bench codec --json codec.json\n"
      "  kdn bench codec --model ~/llama --text book.txt\n"
      "  kdn bench codec --lmcache            # also CacheGen's own code\n\n"
      "Prints one JSON object. For each codec and chunk size it holds the bits "
      "per value with all side information, the divergence of the model's "
      "logits, how often the top token agrees, and how many answers are right. "
      "It also holds the bits above the rate-distortion bound of Gaussian "
      "sources, and the speed of one core next to memcpy, for each instruction "
      "set that the CPU has. With --json, the command also draws "
      "build/codec.svg.");
  auto options = std::make_shared<bench::CodecOptions>();
  command->add_option("--model", options->model,
                      "Hugging Face checkpoint directory (default: the shipped "
                      "recall model)");
  command->add_option("--text", options->texts,
                      "texts on which the levels are compared (default: the "
                      "recall tasks beside the model)");
  command->add_option("--family", options->families,
                      "measure only these families of codecs, such as kdn or "
                      "cachegen-trained, and no speeds");
  command
      ->add_option("--windows", options->windows,
                   "windows of 1,500 tokens to cut from the texts")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--calibrate", options->calibration_texts,
                      "texts to calibrate on, other than the text of --text "
                      "(default: the facts beside the recall model)");
  command
      ->add_option("--base-bits", options->base_bits,
                   "bits per value to aim at, at the base level")
      ->check(CLI::Range(0.2, 2.8))
      ->capture_default_str();
  command->add_option("--json", options->json, "file for the JSON object");
  auto lmcache = std::make_shared<bool>(false);
  command->add_flag("--lmcache", *lmcache,
                    "also measure CacheGen's own code, that of LMCache, as the "
                    "family cachegen-lmcache; fetches LMCache and numba from "
                    "PyPI, and needs Debian's python3-torch");
  command->add_flag("--speeds", options->speeds_only,
                    "measure only the speeds, with the instruction set that "
                    "KDN_ISA names (default: the best of this CPU)");
  options->program = program.path;
  command->callback([&program, options, lmcache] {
    program.exit_code = Report(RunCodec(program, *options, *lmcache));
  });
}

void AddBlendBench(CLI::App& bench, Program& program) {
  CLI::App* command = bench.add_subcommand(
      "blend",
      "Measure answers from chunks that were prefilled apart, next to a full "
      "prefill\n\n"
      "  kdn bench blend --model ~/llama --json blend.json\n"
      "  kdn bench blend --model ~/llama --text book.txt --questions 0\n\n"
      "Prints one JSON object. For each task it holds the share of right "
      "answers and the divergence from a full prefill: with the chunks as they "
      "are (pure reuse), and with a share of their tokens computed anew, for "
      "every rule that selects these tokens. FLOPs are shares of a full "
      "prefill's. With --json, the command also draws build/blend.svg.");
  auto options = std::make_shared<bench::BlendOptions>();
  command
      ->add_option("--model", options->model,
                   "Hugging Face checkpoint directory of a chat model")
      ->required();
  command->add_option("--text", options->texts,
                      "texts whose chunks are prefilled apart, too");
  command
      ->add_option("--questions", options->questions,
                   "questions of each task; 0: none")
      ->check(CLI::Range(0, 100000))
      ->capture_default_str();
  command
      ->add_option("--documents", options->documents,
                   "documents that a question is asked about")
      ->check(CLI::Range(2, 6))
      ->capture_default_str();
  command->add_option("--windows", options->windows, "windows of the texts")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--chunks", options->chunks, "chunks of a window")
      ->check(CLI::Range(2, 64))
      ->capture_default_str();
  command
      ->add_option("--chunk-tokens", options->chunk_tokens,
                   "tokens of a window's chunks")
      ->check(CLI::Range(16, 4096))
      ->capture_default_str();
  command
      ->add_option("--seed", options->seed, "equal seeds ask equal questions")
      ->capture_default_str();
  command->add_option("--json", options->json, "file for the JSON object");
  command->callback([&program, options] {
    program.exit_code = Report(bench::RunBlendBench(*options));
    if (program.exit_code == 0 && !options->json.empty()) {
      Draw(program, "blend", options->json);
    }
  });
}

// Runs bench/peers.py in place of this program.
absl::Status RunPeers(const Program& program,
                      const std::vector<std::string>& arguments) {
  const absl::StatusOr<std::string> script = BenchScript(program, "peers.py");
  if (!script.ok()) return script.status();
  std::vector<std::string> words = {"python3", *script, "--program",
                                    program.path};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  execvp(argv[0], argv.data());
  return absl::ErrnoToStatus(errno, "cannot start python3");
}

void AddPeersBench(CLI::App& bench, Program& program) {
  CLI::App* command = bench.add_subcommand(
      "peers",
      "Measure storing and retrieving KV, next to Redis and Mooncake\n\n"
      "  kdn bench peers --json peers.json\n\n"
      "Starts a server of each system on this host. Installs the clients from "
      "PyPI into build/peers-venv. Prints one JSON object.");
  auto arguments = std::make_shared<std::vector<std::string>>();
  command->add_option_function<std::string>(
      "--json",
      [arguments](const std::string& file) {
        arguments->insert(arguments->end(), {"--json", file});
      },
      "file for the JSON object");
  command->callback([&program, arguments] {
    program.exit_code = Report(RunPeers(program, *arguments));
  });
}

// Not in the help: bench/peers.py is the only user.
void AddCallsBench(CLI::App& bench, Program& program) {
  CLI::App* command = bench.add_subcommand(
      "calls", "Store and retrieve the chunks in a file, for bench/peers.py");
  command->group("");
  auto options = std::make_shared<bench::CallsOptions>();
  command->add_option("address", options->address, "of a gateway")->required();
  command->add_option("kv", options->kv, "file of chunks of 4 MiB")->required();
  command->add_option("--first", options->first, "number of the first chunk");
  command->add_option("--chunks", options->chunks, "number of chunks")
      ->check(CLI::PositiveNumber);
  command->add_option("--at-once", options->at_once, "chunks in flight")
      ->check(CLI::PositiveNumber);
  command->callback([&program, options] {
    program.exit_code = Report(bench::RunCallsBench(*options));
  });
}

void AddPrefillBench(CLI::App& bench, Program& program) {
  CLI::App* command = bench.add_subcommand(
      "prefill",
      "Measure how fast inject and ask run a model on this CPU\n\n"
      "  kdn bench prefill --model ~/smollm2 --json prefill.json\n\n"
      "Prints one JSON object. The rate of prefill stands next to the rate at "
      "which oneDNN multiplies matrices of the model's shapes, and the rate of "
      "decoding next to the rate at which the cores read the weights. Limits "
      "and rates are measured in turns. bench/prefill.py adds llama.cpp.");
  auto options = std::make_shared<bench::PrefillOptions>();
  command->add_option("--model", options->model,
                      "Hugging Face checkpoint directory (default: the shipped "
                      "recall model)");
  command
      ->add_option("--tokens", options->tokens,
                   "tokens of the text that is prefilled")
      ->check(CLI::Range(16, 1 << 17))
      ->capture_default_str();
  command->add_option("--rounds", options->rounds, "rounds of measurements")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  command->add_option("--json", options->json, "file for the JSON object");
  command->callback([&program, options] {
    if (options->model.empty()) options->model = DefaultModelDirectory(program);
    program.exit_code = Report(bench::RunPrefillBench(*options));
  });
}

}  // namespace

void AddBenchCommand(CLI::App& app, Program& program) {
  CLI::App* command = app.add_subcommand(
      "bench", "Measure this build, next to the raw limits of this machine");
  command->require_subcommand(1);
  AddCodecBench(*command, program);
  AddBlendBench(*command, program);
  AddPeersBench(*command, program);
  AddCallsBench(*command, program);
  AddPrefillBench(*command, program);
  CLI::App* delivery = command->add_subcommand(
      "delivery",
      "Measure the rates of delivery, lookup, disk and store\n\n"
      "  kdn bench delivery --json delivery.json\n"
      "  kdn bench delivery remote lookup     # these parts only\n\n"
      "Starts its own nodes. Prints one JSON object. Each rate stands next to "
      "its raw limit (memcpy, "
      "TCP over loopback, the disk's own speed), measured in turns with it.");
  auto options = std::make_shared<bench::DeliveryOptions>();
  options->program = program.path;
  delivery
      ->add_option("part", options->parts,
                   "what to measure (default: everything)")
      ->check(CLI::IsMember(std::vector<std::string>(
          std::begin(bench::kDeliveryParts), std::end(bench::kDeliveryParts))));
  delivery->add_option("--json", options->json, "file for the JSON object");
  delivery->add_flag("--tls", options->tls,
                     "remote, lookup: also measure nodes that speak TLS");
  delivery
      ->add_option("--directory", options->directory,
                   "directory on the disk to measure")
      ->capture_default_str();
  delivery
      ->add_option("--corpus-gb", options->corpus_gb,
                   "GB of KV to store through a small memory tier")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  delivery->callback([&program, options] {
    program.exit_code = Report(bench::RunDeliveryBench(*options));
  });
}

}  // namespace kdn::cli
