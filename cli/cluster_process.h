#ifndef KDN_CLI_CLUSTER_PROCESS_H_
#define KDN_CLI_CLUSTER_PROCESS_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/config.h"

namespace kdn::cli {

// The nodes of a configuration as child processes of this one. They die with
// it: SIGTERM first, SIGKILL for one that has not ended after a while.
// Thread-compatible.
class ClusterProcess {
 public:
  // `program`: the kdn program; `config_file`: what `config` was read from;
  // logs go to log_dir/<id>.log, or to this process' stderr when it is empty.
  ClusterProcess(std::string program, std::string config_file,
                 ClusterConfig config, std::string log_dir);
  ~ClusterProcess();
  ClusterProcess(const ClusterProcess&) = delete;
  ClusterProcess& operator=(const ClusterProcess&) = delete;

  void set_stop_timeout(absl::Duration timeout) { stop_timeout_ = timeout; }

  const ClusterConfig& config() const { return config_; }
  absl::Status Start(size_t node);
  absl::Status StartAll();
  // Until the node's gateway answers and sees `live` live nodes (0: any
  // number). UNAVAILABLE with the end of its log when it has died,
  // DEADLINE_EXCEEDED.
  absl::Status WaitReady(size_t node, int live, absl::Duration timeout);
  absl::Status WaitAllReady(absl::Duration timeout);

  // Ends it with `signal` and waits until it is gone.
  void Kill(size_t node, int signal);
  void Signal(size_t node, int signal);  // without waiting
  bool running(size_t node) const { return pids_[node] > 0; }
  pid_t pid(size_t node) const { return pids_[node]; }
  // The index of a node that has exited since last asked, -1 for none;
  // `*status` is waitpid's.
  int Reap(int* status);

  // "unix:..." where the node has a socket, else "host:port".
  std::string AddressOf(size_t node) const;
  std::string LogTail(size_t node) const;

 private:
  const std::string program_;
  const std::string config_file_;
  const ClusterConfig config_;
  const std::string log_dir_;
  std::vector<pid_t> pids_;  // 0: not running
  absl::Duration stop_timeout_ = absl::Seconds(10);
};

// "exited with 1" or "was killed by Terminated", of waitpid's status.
std::string HowItEnded(int status);

// Where clients of this host reach the node's gateway.
std::string LocalAddressOf(const NodeConfig& node);

// Writes a configuration of `nodes` nodes on free loopback ports, with data,
// sockets and logs below `directory`, and returns it. Sizes are bytes; disk 0:
// no disk tier.
struct LocalClusterOptions {
  int nodes = 3;
  int replicas = 2;
  uint64_t memory_bytes = 256u << 20;
  uint64_t disk_bytes = 1u << 30;
  absl::Duration heartbeat = absl::Milliseconds(200);
  absl::Duration peer_timeout = absl::Seconds(2);
  std::string calibrations;  // directory; empty: none
};
absl::StatusOr<std::string> WriteLocalConfig(
    const std::string& directory, const LocalClusterOptions& options);

}  // namespace kdn::cli

#endif  // KDN_CLI_CLUSTER_PROCESS_H_
