#ifndef KDN_CLI_CONFIG_H_
#define KDN_CLI_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kv/ids.h"

namespace kdn::cli {

struct NodeConfig {
  NodeId id;
  std::string host = "127.0.0.1";
  // The address to listen on, if it is not `host`: an address of the machine,
  // or 0.0.0.0 or :: for all of them. Empty: `host`.
  std::string listen;
  uint16_t control_port = 0;   // actor messages of other nodes
  uint16_t bulk_port = 0;      // objects from and to other nodes
  uint16_t gateway_port = 0;   // engines over TCP
  std::string gateway_socket;  // engines of the same host; empty: none
  uint32_t gateway_socket_mode = 0600;
  std::string gateway_socket_group;  // empty: the group of the process
  double weight = 1.0;
  uint64_t memory_bytes = 1ull << 30;
  std::string data_dir;  // empty: memory only
  uint64_t disk_bytes = 0;
  std::string calibrations;  // directory of *.kdncal files; empty: none
};

// A cluster as its configuration file describes it. Every host has the same
// file; `kdn node --id` picks the node to run.
struct ClusterConfig {
  std::string name = "kdn";
  int replicas = 2;
  absl::Duration heartbeat = absl::Milliseconds(200);
  absl::Duration peer_timeout = absl::Seconds(2);
  int storage_actors = 2;
  int workers = 2;
  std::vector<NodeConfig> nodes;

  const NodeConfig* Find(const std::string& id) const;
};

// Parses the text of a configuration; `file` is its name in error messages.
// "~/" and "$HOME/" at the front of a path stand for the user's home.
// INVALID_ARGUMENT lists every mistake on a line of its own: "file:line: what
// was found, what was expected".
absl::StatusOr<ClusterConfig> ParseClusterConfig(const std::string& text,
                                                 const std::string& file);
absl::StatusOr<ClusterConfig> LoadClusterConfig(const std::string& file);

}  // namespace kdn::cli

#endif  // KDN_CLI_CONFIG_H_
