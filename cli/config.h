#ifndef KDN_CLI_CONFIG_H_
#define KDN_CLI_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kv/ids.h"
#include "rpc/tls/files.h"

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

// Whether nodes prove who they are. Either `certificates` is set, or the three
// files are, or none of them. "{node}" in the path of a file stands for the
// node's name.
struct SecurityConfig {
  std::string certificates;  // directory of ca.pem, NODE.pem and NODE.key
  std::string ca;
  std::string certificate;
  std::string key;
  bool gateway = true;    // with certificates, engines over TCP speak TLS
  bool insecure = false;  // other machines may reach nodes without certificates

  bool has_certificates() const {
    return !certificates.empty() || !certificate.empty();
  }
  bool gateway_tls() const { return gateway && has_certificates(); }
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
  SecurityConfig security;
  std::vector<NodeConfig> nodes;

  const NodeConfig* Find(const std::string& id) const;
};

// The files of the node's certificate; nullopt where nodes have none.
std::optional<rpc::TlsFiles> TlsFilesOf(const ClusterConfig& config,
                                        const NodeConfig& node);
// The address at which engines of other hosts dial the node's gateway:
// "host:port", with "tls://" in front if the gateway speaks TLS.
std::string GatewayAddressOf(const ClusterConfig& config,
                             const NodeConfig& node);
// INVALID_ARGUMENT for a node whose name cannot be in a certificate or in the
// name of a file.
absl::Status CheckCertificateName(const NodeId& id);
// Whether `host`, a name or a number, is one that only this machine reaches. Of
// the names, "localhost" is the only one.
bool IsLoopbackHost(const std::string& host);
// INVALID_ARGUMENT if `node` listens at `address`, other machines reach it
// there, and the configuration neither names certificates nor allows this.
absl::Status CheckReach(const ClusterConfig& config, const NodeConfig& node,
                        const std::string& address);
// The same for the address of every node, as the configuration writes it.
absl::Status CheckReach(const ClusterConfig& config);

// Parses the text of a configuration; `file` is its name in error messages.
// "~/" and "$HOME/" at the front of a path stand for the user's home.
// INVALID_ARGUMENT lists every mistake on a line of its own: "file:line: what
// was found, what was expected".
absl::StatusOr<ClusterConfig> ParseClusterConfig(const std::string& text,
                                                 const std::string& file);
absl::StatusOr<ClusterConfig> LoadClusterConfig(const std::string& file);

}  // namespace kdn::cli

#endif  // KDN_CLI_CONFIG_H_
