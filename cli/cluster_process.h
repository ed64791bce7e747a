#ifndef KDN_CLI_CLUSTER_PROCESS_H_
#define KDN_CLI_CLUSTER_PROCESS_H_

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/config.h"

namespace kdn::cli {

// The nodes of a configuration, as child processes of this process. The
// destructor ends them: with SIGTERM, then with SIGKILL for each node that is
// still running after the stop timeout. Thread-compatible.
class ClusterProcess {
 public:
  // `program` is the path of the kdn program; `config` was read from
  // `config_file`. Logs go to log_dir/<id>.log; with an empty log_dir, to
  // stderr.
  ClusterProcess(const std::string& program, std::string config_file,
                 ClusterConfig config, std::string log_dir);
  ~ClusterProcess();
  ClusterProcess(const ClusterProcess&) = delete;
  ClusterProcess& operator=(const ClusterProcess&) = delete;

  // From its next start the node runs another program.
  void set_program(size_t node, std::string program) {
    programs_[node] = std::move(program);
  }
  void set_stop_timeout(absl::Duration timeout) { stop_timeout_ = timeout; }

  const ClusterConfig& config() const { return config_; }
  absl::Status Start(size_t node);
  absl::Status StartAll();
  // Waits until the node's gateway answers and sees `live` live nodes (0: any
  // number). UNAVAILABLE, with the end of the node's log, when the node has
  // died; DEADLINE_EXCEEDED after `timeout`.
  absl::Status WaitReady(size_t node, int live, absl::Duration timeout);
  absl::Status WaitAllReady(absl::Duration timeout);

  // Sends `signal` to the node and waits until its process has ended.
  void Kill(size_t node, int signal);
  // Sends `signal` and does not wait.
  void Signal(size_t node, int signal);
  bool running(size_t node) const { return pids_[node] > 0; }
  pid_t pid(size_t node) const { return pids_[node]; }
  // The index of a node whose process has ended since the last call; -1 when
  // there is none. `*status` is waitpid's.
  int Reap(int* status);

  // "unix:..." where the node has a socket, else GatewayAddressOf.
  std::string AddressOf(size_t node) const;
  std::string LogTail(size_t node) const;

 private:
  const std::string config_file_;
  const ClusterConfig config_;
  std::vector<std::string> programs_;  // by node
  const std::string log_dir_;
  std::vector<pid_t> pids_;  // 0: not running
  absl::Duration stop_timeout_ = absl::Seconds(10);
};

// Waitpid's status in words: "exited with 1", "was killed by Terminated".
std::string HowItEnded(int status);

// The address at which clients of this host reach the node's gateway.
std::string LocalAddressOf(const ClusterConfig& config, const NodeConfig& node);

struct LocalClusterOptions {
  std::string name = "local";
  int nodes = 3;
  int replicas = 2;
  uint64_t memory_bytes = 256u << 20;
  uint64_t disk_bytes = 1u << 30;  // 0: no disk tier
  absl::Duration heartbeat = absl::Milliseconds(200);
  absl::Duration peer_timeout = absl::Seconds(2);
  std::string calibrations = "";  // directory; empty: none
  std::string host = "127.0.0.1";
  bool tls = false;  // with certificates
};
// Writes a configuration of nodes on free loopback ports, with data, sockets
// and certificates below `directory`. Returns the path of the file.
absl::StatusOr<std::string> WriteLocalConfig(
    const std::string& directory, const LocalClusterOptions& options);

}  // namespace kdn::cli

#endif  // KDN_CLI_CLUSTER_PROCESS_H_
