#ifndef KDN_CLI_COMMANDS_H_
#define KDN_CLI_COMMANDS_H_

#include <CLI/CLI.hpp>
#include <string>

#include "absl/status/status.h"

// The commands of the kdn program. Each function adds one command to the
// command line. The command's callback sets the program's exit code.
namespace kdn::cli {

// Exit codes: 0 done; 1 failed; 2 the command line or configuration is wrong.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;

struct Program {
  std::string path;  // of this executable, to start nodes with
  int exit_code = kExitOk;
};

void AddNodeCommand(CLI::App& app, Program& program);
void AddUpCommand(CLI::App& app, Program& program);
void AddConfigCommand(CLI::App& app, Program& program);
void AddCertsCommand(CLI::App& app, Program& program);
void AddCodecCommand(CLI::App& app, Program& program);
void AddInjectCommand(CLI::App& app, Program& program);
void AddAskCommand(CLI::App& app, Program& program);
void AddStatusCommand(CLI::App& app, Program& program);
void AddTokenizeCommand(CLI::App& app, Program& program);
void AddDemoCommand(CLI::App& app, Program& program);
void AddBenchCommand(CLI::App& app, Program& program);

// Prints the status to stderr and gives the exit code for it.
int Report(const absl::Status& status);

// The shipped checkpoint: model/recall of the checkout or installation that
// this program lies in.
std::string ShippedModelDirectory(const Program& program);
// The directory of the default checkpoint: $KDN_MODEL if set, else the shipped
// checkpoint.
std::string DefaultModelDirectory(const Program& program);
// The folder examples/ of the same checkout or installation.
std::string ShippedExamples(const Program& program);

inline constexpr char kDefaultAddress[] = "unix:/tmp/kdn-local-3-n1.sock";

}  // namespace kdn::cli

#endif  // KDN_CLI_COMMANDS_H_
