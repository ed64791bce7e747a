#include <signal.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "cli/cluster_process.h"
#include "cli/commands.h"
#include "cli/connect.h"
#include "cli/machine_fit.h"
#include "cli/restart_plan.h"
#include "kv/clock.h"
#include "rpc/client/client.h"

namespace kdn::cli {
namespace {

constexpr absl::Duration kStartTimeout = absl::Seconds(60);

// Starts each node of a cluster again when it dies.
class Supervisor {
 public:
  explicit Supervisor(ClusterProcess* cluster)
      : cluster_(cluster), plan_(cluster->config().nodes.size(), SteadyNow()) {}

  // Returns on SIGINT or SIGTERM.
  // REQUIRES: `signals` are SIGINT, SIGTERM and SIGCHLD, and they are blocked.
  void Run(const sigset_t& signals) {
    for (;;) {
      const absl::Duration wait =
          std::min(plan_.NextStart() - SteadyNow(), absl::Minutes(1));
      timespec timeout =
          absl::ToTimespec(std::max(wait, absl::Milliseconds(1)));
      const int received = sigtimedwait(&signals, nullptr, &timeout);
      if (received == SIGINT || received == SIGTERM) return;
      ReapAll();
      StartDue();
    }
  }

 private:
  const std::string& NameOf(size_t node) const {
    return cluster_->config().nodes[node].id.name();
  }
  void ReapAll() {
    int status = 0;
    for (int i = cluster_->Reap(&status); i >= 0; i = cluster_->Reap(&status)) {
      const auto node = static_cast<size_t>(i);
      const absl::Duration pause = plan_.OnEnd(node, SteadyNow());
      std::fprintf(stderr, "kdn: %s %s; starting it again in %s\n",
                   NameOf(node).c_str(), HowItEnded(status).c_str(),
                   absl::FormatDuration(pause).c_str());
    }
  }
  void StartDue() {
    for (size_t i = 0; i < cluster_->config().nodes.size(); ++i) {
      if (!plan_.IsDue(i, SteadyNow())) continue;
      const absl::Status started = cluster_->Start(i);
      if (started.ok()) {
        plan_.OnStarted(i, SteadyNow());
        continue;
      }
      const absl::Duration pause = plan_.OnStartFailed(i, SteadyNow());
      std::fprintf(stderr, "kdn: %s cannot start: %s; trying again in %s\n",
                   NameOf(i).c_str(), std::string(started.message()).c_str(),
                   absl::FormatDuration(pause).c_str());
    }
  }

  ClusterProcess* const cluster_;
  RestartPlan plan_;
};

absl::Status Up(const Program& program, const std::string& file,
                const std::string& log_dir) {
  absl::StatusOr<ClusterConfig> config = LoadClusterConfig(file);
  if (!config.ok()) return config.status();
  if (absl::Status s = CheckReach(*config); !s.ok()) return s;
  if (absl::Status s = CheckMemory(config->nodes, ThisMachine()); !s.ok()) {
    return s;
  }
  ClusterProcess cluster(program.path, file, *config, log_dir);
  for (size_t i = 0; i < config->nodes.size(); ++i) {
    if (Dial(GatewayOf(*config, config->nodes[i])).ok()) {
      return absl::AlreadyExistsError(absl::StrCat(
          "node ", config->nodes[i].id.name(), " answers at ",
          cluster.AddressOf(i), " already: is this cluster running?"));
    }
  }
  if (absl::Status status = cluster.StartAll(); !status.ok()) return status;
  for (size_t i = 0; i < config->nodes.size(); ++i) {
    if (absl::Status status = cluster.WaitReady(i, 0, kStartTimeout);
        !status.ok()) {
      return status;
    }
    std::printf("%s is ready on %s\n", config->nodes[i].id.name().c_str(),
                cluster.AddressOf(i).c_str());
  }
  std::printf("%zu nodes are up; Ctrl-C stops them\n", config->nodes.size());
  std::fflush(stdout);
  sigset_t signals;
  sigemptyset(&signals);
  for (int number : {SIGINT, SIGTERM, SIGCHLD}) sigaddset(&signals, number);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  Supervisor(&cluster).Run(signals);
  std::printf("stopping\n");
  return absl::OkStatus();
}

}  // namespace

void AddUpCommand(CLI::App& app, Program& program) {
  CLI::App* command = app.add_subcommand(
      "up",
      "Start and supervise all nodes of a configuration on this host\n\n"
      "  kdn up -c configs/local-3.yaml\n"
      "  kdn up -c configs/single.yaml --log-dir /tmp/kdn-logs\n\n"
      "A node that dies is started again, each time after a longer pause. "
      "Ctrl-C stops all nodes.");
  auto file = std::make_shared<std::string>();
  auto log_dir = std::make_shared<std::string>();
  command->add_option("-c,--config", *file, "configuration of the cluster")
      ->required();
  command->add_option("--log-dir", *log_dir,
                      "directory for one log file per node (default: stderr)");
  command->callback([&program, file, log_dir] {
    // SIGCHLD is blocked before the first child can die. SIGINT and SIGTERM are
    // not blocked yet: while the nodes start, they end this program and with it
    // the children.
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    program.exit_code = Report(Up(program, *file, *log_dir));
  });
}

}  // namespace kdn::cli
