#ifndef KDN_CLI_COMMANDS_H_
#define KDN_CLI_COMMANDS_H_

#include <CLI/CLI.hpp>
#include <string>

#include "absl/status/status.h"

// The commands of the kdn program. Each adds itself to the command line; when
// it was the one given, its callback sets the program's exit code.
namespace kdn::cli {

// Exit codes: 0 done; 1 failed; 2 the command line or configuration is wrong.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;

// What every command is given.
struct Program {
  std::string path;  // of this program's file, to start nodes with
  int exit_code = kExitOk;
};

void AddNodeCommand(CLI::App& app, Program& program);
void AddUpCommand(CLI::App& app, Program& program);
void AddConfigCommand(CLI::App& app, Program& program);
void AddCodecCommand(CLI::App& app, Program& program);
void AddInjectCommand(CLI::App& app, Program& program);
void AddAskCommand(CLI::App& app, Program& program);
void AddStatusCommand(CLI::App& app, Program& program);
void AddDemoCommand(CLI::App& app, Program& program);
void AddBenchCommand(CLI::App& app, Program& program);

// Prints the status to stderr and gives the exit code for it.
int Report(const absl::Status& status);

// Where the shipped checkpoint lies: $KDN_MODEL, or model/recall beside or
// above this program.
std::string DefaultModelDirectory(const Program& program);

inline constexpr char kDefaultAddress[] = "unix:/tmp/kdn-local-3-n1.sock";

}  // namespace kdn::cli

#endif  // KDN_CLI_COMMANDS_H_
