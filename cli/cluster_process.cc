#include "cli/cluster_process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cli/certificates.h"
#include "cli/connect.h"
#include "kv/clock.h"
#include "rpc/client/client.h"

namespace kdn::cli {
namespace {

// Time between two looks at a node that starts or stops.
constexpr absl::Duration kPoll = absl::Milliseconds(50);

// Runs in the child process: executes the command, or exits.
[[noreturn]] void Become(const std::vector<std::string>& command,
                         const std::string& log, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(127);  // the parent died before the prctl
  if (!log.empty()) {
    const int fd = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (fd >= 0) {
      dup2(fd, STDOUT_FILENO);
      dup2(fd, STDERR_FILENO);
    }
  }
  std::vector<char*> argv;
  for (const std::string& word : command) {
    argv.push_back(const_cast<char*>(word.c_str()));
  }
  argv.push_back(nullptr);
  execv(argv[0], argv.data());
  _exit(127);
}

// Finds ports that nobody listens on now. They lie below the ports that the
// kernel gives to outgoing connections (ip_local_port_range), so that no
// connection takes a port before its node starts. All sockets stay open until
// the last port is found, so that the ports differ.
absl::StatusOr<std::vector<uint16_t>> FreePorts(int count) {
  constexpr uint16_t kFirst = 10000;
  constexpr uint16_t kEnd = 32768;
  std::vector<int> sockets;
  std::vector<uint16_t> ports;
  std::random_device random;
  for (int tries = 0;
       static_cast<int>(ports.size()) < count && tries < 100 * count; ++tries) {
    const auto port =
        static_cast<uint16_t>(kFirst + random() % (kEnd - kFirst));
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    if (fd < 0) break;
    sockets.push_back(fd);
    if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) {
      ports.push_back(port);
    }
  }
  for (int fd : sockets) close(fd);
  if (static_cast<int>(ports.size()) == count) return ports;
  return absl::UnavailableError(
      absl::StrCat("finding free ports: ", strerror(errno)));
}

}  // namespace

std::string HowItEnded(int status) {
  if (WIFSIGNALED(status)) {
    return absl::StrCat("was killed by ", strsignal(WTERMSIG(status)));
  }
  return absl::StrCat("exited with ", WEXITSTATUS(status));
}

ClusterProcess::ClusterProcess(const std::string& program,
                               std::string config_file, ClusterConfig config,
                               std::string log_dir)
    : config_file_(std::move(config_file)),
      config_(std::move(config)),
      programs_(config_.nodes.size(), program),
      log_dir_(std::move(log_dir)),
      pids_(config_.nodes.size(), 0) {}

ClusterProcess::~ClusterProcess() {
  for (size_t i = 0; i < pids_.size(); ++i) Signal(i, SIGTERM);
  const absl::Time deadline = SteadyNow() + stop_timeout_;
  const auto any = [this] {
    return std::any_of(pids_.begin(), pids_.end(),
                       [](pid_t pid) { return pid > 0; });
  };
  int status = 0;
  while (any() && SteadyNow() < deadline) {
    if (Reap(&status) < 0) absl::SleepFor(kPoll);
  }
  for (size_t i = 0; i < pids_.size(); ++i) {
    if (pids_[i] == 0) continue;
    spdlog::error("node {} does not stop; killing it",
                  config_.nodes[i].id.name());
    Kill(i, SIGKILL);
  }
}

absl::Status ClusterProcess::Start(size_t node) {
  std::string log;
  if (!log_dir_.empty()) {
    std::error_code error;
    std::filesystem::create_directories(log_dir_, error);
    if (error) {
      return absl::UnavailableError(
          absl::StrCat("creating ", log_dir_, ": ", error.message()));
    }
    log = absl::StrCat(log_dir_, "/", config_.nodes[node].id.name(), ".log");
  }
  const bool warn = spdlog::get_level() == spdlog::level::warn;
  const auto level = spdlog::level::to_string_view(spdlog::get_level());
  const std::vector<std::string> command = {
      programs_[node],
      "--log-level",
      warn ? "warn" : std::string(level.data(), level.size()),
      "node",
      "-c",
      config_file_,
      "--id",
      config_.nodes[node].id.name()};
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) {
    return absl::UnavailableError(absl::StrCat("fork: ", strerror(errno)));
  }
  if (pid == 0) Become(command, log, parent);
  pids_[node] = pid;
  return absl::OkStatus();
}

absl::Status ClusterProcess::StartAll() {
  for (size_t i = 0; i < pids_.size(); ++i) {
    if (absl::Status status = Start(i); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status ClusterProcess::WaitReady(size_t node, int live,
                                       absl::Duration timeout) {
  const absl::Time deadline = SteadyNow() + timeout;
  const std::string& id = config_.nodes[node].id.name();
  absl::Status last = absl::UnavailableError("not asked yet");
  while (SteadyNow() < deadline) {
    int exit_status = 0;
    if (pids_[node] > 0 && waitpid(pids_[node], &exit_status, WNOHANG) > 0) {
      pids_[node] = 0;
      return absl::UnavailableError(absl::StrCat(
          "node ", id, " ", HowItEnded(exit_status),
          " while it started; its log ends with:\n", LogTail(node)));
    }
    absl::StatusOr<std::unique_ptr<rpc::Client>> client =
        Dial(GatewayOf(config_, config_.nodes[node]));
    last = client.status();
    if (client.ok()) {
      if (live == 0) return absl::OkStatus();
      const absl::StatusOr<std::vector<NodeStatus>> nodes =
          (*client)->Status(absl::Seconds(2));
      last = nodes.status();
      if (nodes.ok()) {
        const auto alive = std::count_if(
            nodes->begin(), nodes->end(),
            [](const NodeStatus& status) { return status.alive; });
        if (alive == live) return absl::OkStatus();
        last = absl::UnavailableError(
            absl::StrCat(id, " sees ", alive, " of ", live, " nodes"));
      }
    }
    absl::SleepFor(kPoll);
  }
  return absl::DeadlineExceededError(
      absl::StrCat("node ", id, " was not ready after ",
                   absl::FormatDuration(timeout), ": ", last.message()));
}

absl::Status ClusterProcess::WaitAllReady(absl::Duration timeout) {
  for (size_t i = 0; i < pids_.size(); ++i) {
    if (absl::Status status =
            WaitReady(i, static_cast<int>(pids_.size()), timeout);
        !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

void ClusterProcess::Kill(size_t node, int signal) {
  Signal(node, signal);
  if (pids_[node] > 0) waitpid(pids_[node], nullptr, 0);
  pids_[node] = 0;
}

void ClusterProcess::Signal(size_t node, int signal) {
  if (pids_[node] > 0) kill(pids_[node], signal);
}

int ClusterProcess::Reap(int* status) {
  for (size_t i = 0; i < pids_.size(); ++i) {
    if (pids_[i] > 0 && waitpid(pids_[i], status, WNOHANG) == pids_[i]) {
      pids_[i] = 0;
      return static_cast<int>(i);
    }
  }
  return -1;
}

std::string LocalAddressOf(const ClusterConfig& config,
                           const NodeConfig& node) {
  if (!node.gateway_socket.empty()) {
    return absl::StrCat("unix:", node.gateway_socket);
  }
  return GatewayAddressOf(config, node);
}

std::string ClusterProcess::AddressOf(size_t node) const {
  return LocalAddressOf(config_, config_.nodes[node]);
}

std::string ClusterProcess::LogTail(size_t node) const {
  if (log_dir_.empty()) return "(on stderr)";
  std::ifstream file(
      absl::StrCat(log_dir_, "/", config_.nodes[node].id.name(), ".log"));
  std::ostringstream text;
  text << file.rdbuf();
  const std::string whole = text.str();
  constexpr size_t kTail = 2000;
  return whole.size() <= kTail ? whole : whole.substr(whole.size() - kTail);
}

absl::StatusOr<std::string> WriteLocalConfig(
    const std::string& directory, const LocalClusterOptions& options) {
  absl::StatusOr<std::vector<uint16_t>> ports = FreePorts(3 * options.nodes);
  if (!ports.ok()) return ports.status();
  std::filesystem::create_directories(directory);
  const std::string path = directory + "/cluster.yaml";
  std::ofstream file(path);
  file << "cluster:\n  name: " << options.name
       << "\n  replicas: " << options.replicas
       << "\n  heartbeat: " << absl::FormatDuration(options.heartbeat)
       << "\n  peer_timeout: " << absl::FormatDuration(options.peer_timeout)
       << "\ndefaults:\n  host: '" << options.host
       << "'\n  memory: " << options.memory_bytes << "\n";
  if (!options.calibrations.empty()) {
    file << "  calibrations: " << options.calibrations << "\n";
  }
  file << "nodes:\n";
  for (int i = 0; i < options.nodes; ++i) {
    const std::string id = absl::StrCat("n", i + 1);
    file << "  - id: " << id << "\n    control_port: " << (*ports)[3 * i]
         << "\n    bulk_port: " << (*ports)[3 * i + 1]
         << "\n    gateway_port: " << (*ports)[3 * i + 2]
         << "\n    gateway_socket: " << directory << "/" << id << ".sock\n";
    if (options.disk_bytes > 0) {
      file << "    data_dir: " << directory << "/" << id
           << "\n    disk: " << options.disk_bytes << "\n";
    }
  }
  const std::string certificates = directory + "/certs";
  if (options.tls) file << "security: {certificates: " << certificates << "}\n";
  file.close();
  if (!file) return absl::UnavailableError("cannot write " + path);
  if (!options.tls) return path;
  const absl::StatusOr<ClusterConfig> config = LoadClusterConfig(path);
  if (!config.ok()) return config.status();
  CertificateOptions made;
  made.directory = certificates;
  if (const auto s = MakeCertificates(*config, made, absl::Now()); !s.ok()) {
    return s.status();
  }
  return path;
}

}  // namespace kdn::cli
