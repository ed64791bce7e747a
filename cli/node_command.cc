#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cli/commands.h"
#include "cli/config.h"
#include "cli/machine_fit.h"
#include "cli/wiring.h"

namespace kdn::cli {
namespace {

absl::Status RunNode(const std::string& file, const std::string& id) {
  // The signals are blocked before there are other threads: all threads inherit
  // that, and sigwait below receives the signals.
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGINT);
  sigaddset(&stop, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);
  signal(SIGPIPE, SIG_IGN);
  // What a node writes holds token ids and KV in plaintext.
  umask(S_IRWXG | S_IRWXO);

  absl::StatusOr<ClusterConfig> config = LoadClusterConfig(file);
  if (!config.ok()) return config.status();
  const NodeConfig* self = config->Find(id);
  if (self == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        file, " has no node '", id, "'; its nodes are: ",
        absl::StrJoin(config->nodes, ", ",
                      [](std::string* out, const NodeConfig& node) {
                        out->append(node.id.name());
                      })));
  }
  const Machine machine = ThisMachine();
  if (absl::Status s = CheckMemory({*self}, machine); !s.ok()) return s;
  // Several nodes may share a terminal.
  spdlog::set_pattern(absl::StrCat("%Y-%m-%dT%H:%M:%S.%e %l ", id, ": %v"));
  if (absl::Status s = CheckDisk({*self}, machine); !s.ok()) {
    spdlog::warn("{}", std::string(s.message()));
  }
  absl::StatusOr<std::unique_ptr<RunningNode>> node =
      RunningNode::Start(*config, *self);
  if (!node.ok()) {
    return absl::Status(
        node.status().code(),
        absl::StrCat("node ", id, " cannot start: ", node.status().message()));
  }
  spdlog::info(
      "ready: engines connect to {}{}{}", GatewayAddressOf(*config, *self),
      self->gateway_socket.empty() ? "" : " and ", self->gateway_socket);
  int received = 0;
  sigwait(&stop, &received);
  spdlog::info("stopping, because of signal: {}", strsignal(received));
  node->reset();
  return absl::OkStatus();
}

// How nodes and engines talk, in words.
std::string SecurityText(const SecurityConfig& security) {
  if (!security.has_certificates()) {
    return security.insecure
               ? "no TLS; `insecure` lets other machines reach the nodes"
               : "no TLS; only this machine reaches the nodes";
  }
  return absl::StrCat("TLS between nodes, certificates in ",
                      security.certificates.empty() ? security.certificate
                                                    : security.certificates,
                      security.gateway ? "; TLS for engines over TCP"
                                       : "; no TLS for engines over TCP");
}

absl::Status CheckConfig(const std::string& file) {
  const absl::StatusOr<ClusterConfig> config = LoadClusterConfig(file);
  if (!config.ok()) return config.status();
  if (absl::Status s = CheckReach(*config); !s.ok()) return s;
  const Machine machine = ThisMachine();
  const std::vector<NodeConfig> here = LoopbackNodes(*config);
  if (absl::Status s = CheckMemory(here, machine); !s.ok()) return s;
  if (absl::Status s = CheckDisk(here, machine); !s.ok()) return s;
  std::printf("%s: %zu nodes, %d replicas\n%s\n", file.c_str(),
              config->nodes.size(), config->replicas,
              SecurityText(config->security).c_str());
  return absl::OkStatus();
}

}  // namespace

void AddNodeCommand(CLI::App& app, Program& program) {
  CLI::App* command = app.add_subcommand(
      "node",
      "Run one node of a configuration in the foreground\n\n"
      "  kdn node -c configs/multi-host.yaml --id a\n\n"
      "Stops cleanly on SIGINT and SIGTERM. Every host of a cluster has the "
      "same file and runs its own id.");
  auto file = std::make_shared<std::string>();
  auto id = std::make_shared<std::string>();
  command->add_option("-c,--config", *file, "configuration of the cluster")
      ->required();
  command->add_option("--id", *id, "id of the node to run")->required();
  command->callback([&program, file, id] {
    program.exit_code = Report(RunNode(*file, *id));
  });
}

void AddConfigCommand(CLI::App& app, Program& program) {
  CLI::App* command =
      app.add_subcommand("config",
                         "Check a configuration without starting anything\n\n"
                         "  kdn config configs/local-3.yaml\n\n"
                         "Reports every mistake with file and line. Nodes on a "
                         "loopback address must fit this machine together. "
                         "Nodes that other machines reach must have "
                         "certificates (`kdn certs`), or `insecure: true`.");
  auto file = std::make_shared<std::string>();
  command->add_option("FILE", *file, "configuration to check")->required();
  command->callback(
      [&program, file] { program.exit_code = Report(CheckConfig(*file)); });
}

}  // namespace kdn::cli
