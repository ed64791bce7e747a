#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "cli/commands.h"
#include "kv/isa.h"
#include "kv/log.h"

namespace kdn::cli {
namespace {

// The log sink of the libraries: their messages go to the program's log.
void WriteLine(LogSeverity severity, absl::string_view site,
               absl::string_view message) {
  spdlog::level::level_enum level = spdlog::level::info;
  if (severity == LogSeverity::kWarning) level = spdlog::level::warn;
  if (severity == LogSeverity::kError) level = spdlog::level::err;
  spdlog::log(level, "{}: {}", std::string(site), std::string(message));
}

// A directory that has `file` in it: `in_checkout` of the program's checkout,
// `in_share` of its installation, or `in_checkout` of the working directory.
std::string FindShipped(const Program& program, const char* in_checkout,
                        const char* in_share, const char* file) {
  namespace fs = std::filesystem;
  const fs::path beside = fs::path(program.path).parent_path();
  for (const fs::path& place :
       {beside / "../.." / in_checkout, beside / "../share/kdn" / in_share,
        fs::path(in_checkout)}) {
    if (fs::exists(place / file)) return fs::weakly_canonical(place).string();
  }
  return in_checkout;
}

}  // namespace

int Report(const absl::Status& status) {
  if (status.ok()) return kExitOk;
  std::fprintf(stderr, "kdn: %s\n", std::string(status.message()).c_str());
  return absl::IsInvalidArgument(status) ? kExitUsage : kExitFailed;
}

std::string ShippedModelDirectory(const Program& program) {
  return FindShipped(program, "model/recall", "recall", "config.json");
}

std::string DefaultModelDirectory(const Program& program) {
  if (const char* chosen = std::getenv("KDN_MODEL")) return chosen;
  return ShippedModelDirectory(program);
}

std::string ShippedExamples(const Program& program) {
  return FindShipped(program, "examples", "examples", "questions.jsonl");
}

}  // namespace kdn::cli

int main(int argc, char** argv) {
  using kdn::cli::Program;
  spdlog::set_default_logger(spdlog::stderr_logger_mt("kdn"));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");
  kdn::SetLogSink(kdn::cli::WriteLine);
  if (absl::Status s = kdn::CheckIsaVariable(); !s.ok()) {
    return kdn::cli::Report(s);
  }

  Program program;
  std::error_code error;
  program.path =
      std::filesystem::read_symlink("/proc/self/exe", error).string();

  CLI::App app(
      "Knowledge Delivery Network: a cluster that stores the KV caches of "
      "texts for LLM engines and delivers them.\n\n"
      "  kdn up -c configs/local-3.yaml          three nodes on this host\n"
      "  kdn inject model/recall/facts           prefill texts and store their "
      "KV\n"
      "  kdn ask -k model/recall/facts/arden.txt --tokens 1 \"What is the code "
      "of vault elm?\"\n"
      "                                          answer without prefilling\n"
      "  kdn status                              nodes, objects, hit rates\n\n"
      "Exit codes: 0 done, 1 failed, 2 wrong command line or configuration.",
      "kdn");
  app.require_subcommand(1);
  app.set_version_flag("--version", "kdn 0.1.0");
  std::string level = "info";
  app.add_option("--log-level", level, "lowest severity to log; default: info")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}));
  app.parse_complete_callback(
      [&level] { spdlog::set_level(spdlog::level::from_str(level)); });
  kdn::cli::AddUpCommand(app, program);
  kdn::cli::AddNodeCommand(app, program);
  kdn::cli::AddInjectCommand(app, program);
  kdn::cli::AddAskCommand(app, program);
  kdn::cli::AddStatusCommand(app, program);
  kdn::cli::AddTokenizeCommand(app, program);
  kdn::cli::AddDemoCommand(app, program);
  kdn::cli::AddBenchCommand(app, program);
  kdn::cli::AddCodecCommand(app, program);
  kdn::cli::AddConfigCommand(app, program);
  kdn::cli::AddCertsCommand(app, program);
  const std::vector<CLI::App*> commands = app.get_subcommands({});
  if (argc > 1 && argv[1][0] != '-' &&
      std::none_of(commands.begin(), commands.end(),
                   [&](const CLI::App* command) {
                     return command->get_name() == argv[1];
                   })) {
    std::fprintf(stderr, "kdn: no command '%s'; the commands are:", argv[1]);
    for (const CLI::App* command : commands) {
      std::fprintf(stderr, " %s", command->get_name().c_str());
    }
    std::fprintf(stderr, "\n");
    return kdn::cli::kExitUsage;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& failure) {
    return app.exit(failure) == 0 ? kdn::cli::kExitOk : kdn::cli::kExitUsage;
  } catch (const std::exception& broken) {
    // The standard library throws these: out of memory, a path too long.
    std::fprintf(stderr, "kdn: %s\n", broken.what());
    return kdn::cli::kExitFailed;
  }
  return program.exit_code;
}
