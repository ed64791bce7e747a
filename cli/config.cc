#include "cli/config.h"

#include <arpa/inet.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "cli/yaml_reader.h"
#include "kv/host_port.h"

namespace kdn::cli {
namespace {

NodeConfig ReadNode(YamlReader& reader, const YAML::Node& yaml,
                    const NodeConfig& defaults, bool is_default) {
  NodeConfig node = defaults;
  std::string id;
  std::map<std::string, YamlReader::Setter> setters = {
      {"host", reader.Host(node.host)},
      {"listen", reader.Host(node.listen)},
      {"weight", reader.Weight(node.weight)},
      {"memory", reader.Size(node.memory_bytes)},
      {"data_dir", reader.Path(node.data_dir)},
      {"disk", reader.Size(node.disk_bytes)},
      {"gateway_socket_mode", reader.Mode(node.gateway_socket_mode)},
      {"gateway_socket_group", reader.Text(node.gateway_socket_group)},
      {"calibrations", reader.Path(node.calibrations)}};
  if (!is_default) {
    setters["id"] = reader.Text(id);
    setters["control_port"] = reader.Integer(node.control_port, 1, 65535);
    setters["bulk_port"] = reader.Integer(node.bulk_port, 1, 65535);
    setters["gateway_port"] = reader.Integer(node.gateway_port, 1, 65535);
    setters["gateway_socket"] = reader.Path(node.gateway_socket);
  }
  reader.Map(yaml, is_default ? "defaults" : "a node", setters);
  node.id = NodeId(id);
  return node;
}

// One of the two ways to name certificates, or none, or `insecure`.
void CheckSecurity(YamlReader& reader, const YAML::Node& yaml,
                   const SecurityConfig& security, bool gateway) {
  const std::pair<const char*, const std::string*> files[] = {
      {"ca", &security.ca},
      {"certificate", &security.certificate},
      {"key", &security.key}};
  std::vector<std::string> named;
  std::vector<std::string> missing;
  for (const auto& [name, path] : files) {
    (path->empty() ? missing : named).emplace_back(name);
  }
  if (!named.empty() && !missing.empty()) {
    reader.Fail(yaml,
                absl::StrCat("'", absl::StrJoin(named, "', '"), "' without '",
                             absl::StrJoin(missing, "', '"),
                             "', expected all three files"));
  }
  if (!security.certificates.empty() && !named.empty()) {
    reader.Fail(yaml, absl::StrCat("'certificates' and '", named[0],
                                   "', expected one of them: a directory, or "
                                   "three files"));
  }
  if (security.insecure && security.has_certificates()) {
    reader.Fail(yaml,
                "certificates and 'insecure: true', expected one of them");
  }
  if (gateway && !security.has_certificates()) {
    reader.Fail(yaml,
                "'gateway: true' without certificates, expected "
                "'certificates' too");
  }
}

SecurityConfig ReadSecurity(YamlReader& reader, const YAML::Node& yaml) {
  SecurityConfig security;
  std::optional<bool> gateway;
  std::optional<bool> insecure;
  reader.Map(yaml, "security",
             {{"certificates", reader.Path(security.certificates)},
              {"ca", reader.Path(security.ca)},
              {"certificate", reader.Path(security.certificate)},
              {"key", reader.Path(security.key)},
              {"gateway", reader.Flag(gateway)},
              {"insecure", reader.Flag(insecure)}});
  security.gateway = gateway.value_or(true);
  security.insecure = insecure.value_or(false);
  CheckSecurity(reader, yaml, security, gateway.value_or(false));
  return security;
}

// Checks what needs several fields or several nodes.
void CheckNode(YamlReader& reader, const YAML::Node& yaml,
               const NodeConfig& node, std::set<std::string>& ids,
               std::set<std::string>& addresses) {
  if (!yaml.IsMap()) return;
  if (node.id.empty()) {
    reader.Fail(yaml, "a node without 'id', expected a name such as n1");
  } else if (!ids.insert(node.id.name()).second) {
    reader.Fail(yaml,
                absl::StrCat("node '", node.id.name(), "' is there twice"));
  }
  const std::pair<const char*, uint16_t> ports[] = {
      {"control_port", node.control_port},
      {"bulk_port", node.bulk_port},
      {"gateway_port", node.gateway_port}};
  for (const auto& [name, port] : ports) {
    if (port == 0) {
      reader.Fail(yaml, absl::StrCat("node '", node.id.name(), "' has no '",
                                     name, "', expected a port"));
    } else if (!addresses.insert(absl::StrCat(node.host, ":", port)).second) {
      reader.Fail(
          yaml, absl::StrCat("node '", node.id.name(), "': ", name, " ", port,
                             " on ", node.host, " is taken by another entry"));
    }
  }
  for (const auto& [name, path] :
       {std::pair<const char*, std::string>{"data_dir", node.data_dir},
        {"gateway_socket", node.gateway_socket}}) {
    if (!path.empty() &&
        !addresses.insert(absl::StrCat(node.host, ":", path)).second) {
      reader.Fail(
          yaml, absl::StrCat("node '", node.id.name(), "': ", name, " ", path,
                             " on ", node.host, " is taken by another entry"));
    }
  }
  if (!node.data_dir.empty() && node.disk_bytes < (16u << 20)) {
    reader.Fail(yaml,
                absl::StrCat("node '", node.id.name(),
                             "' has a data_dir but a disk of ", node.disk_bytes,
                             " bytes, expected at least 16 MiB"));
  }
  if (node.memory_bytes < (4u << 20)) {
    reader.Fail(yaml, absl::StrCat(
                          "node '", node.id.name(), "' has ", node.memory_bytes,
                          " bytes of memory, expected at least 4 MiB"));
  }
}

// A node's certificate has the node's id, and so have its files.
void CheckCertificateId(YamlReader& reader, const YAML::Node& yaml,
                        const ClusterConfig& config) {
  const NodeId& id = config.nodes.back().id;
  if (!config.security.has_certificates() || id.empty()) return;
  const absl::Status status = CheckCertificateName(id);
  if (!status.ok()) reader.Fail(yaml, std::string(status.message()));
}

// `path` with the node's name.
std::string OfNode(const std::string& path, const NodeConfig& node) {
  return absl::StrReplaceAll(path, {{"{node}", node.id.name()}});
}

}  // namespace

std::optional<rpc::TlsFiles> TlsFilesOf(const ClusterConfig& config,
                                        const NodeConfig& node) {
  const SecurityConfig& security = config.security;
  if (!security.has_certificates()) return std::nullopt;
  if (security.certificates.empty()) {
    return rpc::TlsFiles{OfNode(security.ca, node),
                         OfNode(security.certificate, node),
                         OfNode(security.key, node)};
  }
  const std::string front =
      absl::StrCat(security.certificates, "/", node.id.name());
  return rpc::TlsFiles{security.certificates + "/ca.pem", front + ".pem",
                       front + ".key"};
}

std::string GatewayAddressOf(const ClusterConfig& config,
                             const NodeConfig& node) {
  return absl::StrCat(config.security.gateway_tls() ? "tls://" : "",
                      HostPort(node.host, node.gateway_port));
}

absl::Status CheckCertificateName(const NodeId& id) {
  constexpr size_t kBytesMax = 64;  // of the common name, in X.509
  const std::string& name = id.name();
  const bool known =
      std::all_of(name.begin(), name.end(), [](unsigned char letter) {
        return absl::ascii_isalnum(letter) || letter == '-' || letter == '_' ||
               letter == '.';
      });
  // ca.pem and ca.key are the authority's files.
  if (known && !name.empty() && name.size() <= kBytesMax && name[0] != '.' &&
      name[0] != '-' && name != "ca") {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("node '", name,
                   "' cannot have a certificate of that name: expected at "
                   "most ",
                   kBytesMax,
                   " letters, digits, '-', '_' and '.', that do not "
                   "begin with '-' or '.', and not 'ca'"));
}

bool IsLoopbackHost(const std::string& host) {
  in_addr four;
  return host == "localhost" || host == "::1" ||
         (absl::StartsWith(host, "127.") &&
          inet_pton(AF_INET, host.c_str(), &four) == 1);
}

absl::Status CheckReach(const ClusterConfig& config, const NodeConfig& node,
                        const std::string& address) {
  const SecurityConfig& security = config.security;
  if (IsLoopbackHost(address) || security.has_certificates() ||
      security.insecure) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "node ", node.id.name(), " listens on ", address,
      ", which other machines reach, and the configuration names no "
      "certificates. Whoever reaches the ports of such a node can stop it, and "
      "read and replace KV. Run `kdn certs -c FILE -o DIR` and add "
      "`security: {certificates: DIR}` to the configuration; or add "
      "`security: {insecure: true}` if only trusted machines reach the ports"));
}

absl::Status CheckReach(const ClusterConfig& config) {
  for (const NodeConfig& node : config.nodes) {
    const std::string& address = node.listen.empty() ? node.host : node.listen;
    if (absl::Status s = CheckReach(config, node, address); !s.ok()) return s;
  }
  return absl::OkStatus();
}

const NodeConfig* ClusterConfig::Find(const std::string& id) const {
  for (const NodeConfig& node : nodes) {
    if (node.id.name() == id) return &node;
  }
  return nullptr;
}

absl::StatusOr<ClusterConfig> ParseClusterConfig(const std::string& text,
                                                 const std::string& file) {
  YAML::Node root;
  try {
    root = YAML::Load(text);
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(
        file, ":", error.mark.line + 1, ": not YAML: ", error.msg));
  }
  YamlReader reader(file);
  ClusterConfig config;
  NodeConfig defaults;
  std::vector<YAML::Node> nodes;
  reader.Map(
      root, "the configuration",
      {{"cluster",
        [&](const YAML::Node& node) {
          reader.Map(
              node, "cluster",
              {{"name", reader.Text(config.name)},
               {"replicas", reader.Integer(config.replicas, 1, 16)},
               {"heartbeat", reader.Duration(config.heartbeat)},
               {"peer_timeout", reader.Duration(config.peer_timeout)},
               {"storage_actors", reader.Integer(config.storage_actors, 1, 64)},
               {"workers", reader.Integer(config.workers, 1, 256)}});
        }},
       {"defaults",
        [&](const YAML::Node& node) {
          defaults = ReadNode(reader, node, defaults, true);
        }},
       {"security",
        [&](const YAML::Node& node) {
          config.security = ReadSecurity(reader, node);
        }},
       {"nodes", [&](const YAML::Node& node) {
          if (!node.IsSequence() || node.size() == 0) {
            return reader.Fail(node, "expected a list of nodes");
          }
          for (const YAML::Node& item : node) nodes.push_back(item);
        }}});
  std::set<std::string> ids;
  std::set<std::string> addresses;
  for (const YAML::Node& yaml : nodes) {
    config.nodes.push_back(ReadNode(reader, yaml, defaults, false));
    CheckNode(reader, yaml, config.nodes.back(), ids, addresses);
    CheckCertificateId(reader, yaml, config);
  }
  if (config.heartbeat >= config.peer_timeout) {
    reader.Fail(
        root["cluster"] ? root["cluster"] : root,
        absl::StrCat("heartbeat is ", absl::FormatDuration(config.heartbeat),
                     ", expected less than the peer_timeout of ",
                     absl::FormatDuration(config.peer_timeout)));
  }
  if (nodes.empty() && reader.status().ok()) {
    reader.Fail(root, "no 'nodes', expected a list of them");
  }
  if (!reader.status().ok()) return reader.status();
  return config;
}

absl::StatusOr<ClusterConfig> LoadClusterConfig(const std::string& file) {
  std::ifstream stream(file);
  if (!stream) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot read the configuration ", file,
                     "; configs/local-3.yaml is an example"));
  }
  std::ostringstream text;
  text << stream.rdbuf();
  return ParseClusterConfig(text.str(), file);
}

}  // namespace kdn::cli
