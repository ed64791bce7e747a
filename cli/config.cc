#include "cli/config.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

namespace kdn::cli {
namespace {

// The number of single-character edits that turn one word into the other.
int EditDistance(const std::string& a, const std::string& b) {
  std::vector<int> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    int diagonal = row[0];
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int substitute = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row[b.size()];
}

std::optional<uint64_t> ParseSize(const std::string& text) {
  static constexpr std::pair<const char*, uint64_t> kUnits[] = {
      {"KiB", 1ull << 10}, {"MiB", 1ull << 20},   {"GiB", 1ull << 30},
      {"TiB", 1ull << 40}, {"KB", 1000},          {"MB", 1000000},
      {"GB", 1000000000},  {"TB", 1000000000000}, {"B", 1}};
  absl::string_view number = text;
  uint64_t unit = 1;
  for (const auto& [name, bytes] : kUnits) {
    if (absl::ConsumeSuffix(&number, name)) {
      unit = bytes;
      break;
    }
  }
  double value = 0;
  if (!absl::SimpleAtod(absl::StripAsciiWhitespace(number), &value) ||
      !(value >= 0) || value * static_cast<double>(unit) > 1e18) {
    return std::nullopt;
  }
  return static_cast<uint64_t>(value * static_cast<double>(unit));
}

std::string ExpandHome(std::string path) {
  const char* home = std::getenv("HOME");
  if (home == nullptr) return path;
  for (const char* prefix : {"~/", "$HOME/"}) {
    if (path.rfind(prefix, 0) == 0) {
      return absl::StrCat(home, "/", path.substr(std::string(prefix).size()));
    }
  }
  return path;
}

// Reads a YAML map field by field and collects every mistake.
class Reader {
 public:
  explicit Reader(std::string file) : file_(std::move(file)) {}

  void Fail(const YAML::Node& node, const std::string& what) {
    mistakes_.push_back(
        // The line of an empty document is -1.
        absl::StrCat(file_, ":", std::max(node.Mark().line + 1, 1), ": ",
                     what));
  }

  using Setter = std::function<void(const YAML::Node&)>;
  // Calls the setter of each key. A key that is unknown or repeated is a
  // mistake.
  void Map(const YAML::Node& node, const std::string& what,
           const std::map<std::string, Setter>& setters) {
    if (!node.IsMap()) {
      return Fail(node, absl::StrCat("found ", KindOf(node), ", expected ",
                                     what, " as a map of keys"));
    }
    std::set<std::string> seen;
    for (const auto& entry : node) {
      const std::string key = entry.first.Scalar();
      const auto setter = setters.find(key);
      if (setter == setters.end()) {
        Fail(entry.first, absl::StrCat("unknown key '", key, "' in ", what,
                                       Suggest(key, setters)));
      } else if (!seen.insert(key).second) {
        Fail(entry.first, absl::StrCat("'", key, "' is there twice"));
      } else {
        setter->second(entry.second);
      }
    }
  }

  Setter Text(std::string& out) {
    return [this, &out](const YAML::Node& node) {
      if (!node.IsScalar() || node.Scalar().empty()) {
        return Fail(node, absl::StrCat("found ", KindOf(node),
                                       ", expected a word or text"));
      }
      out = node.Scalar();
    };
  }
  // A name or an address without a port; IPv6 with or without brackets.
  Setter Host(std::string& out) {
    return [this, &out](const YAML::Node& node) {
      const std::string text = node.IsScalar() ? node.Scalar() : "";
      const bool bracketed =
          text.size() > 2 && text.front() == '[' && text.back() == ']';
      const std::string host =
          bracketed ? text.substr(1, text.size() - 2) : text;
      const auto colons = std::count(host.begin(), host.end(), ':');
      if (host.empty() || colons == 1 ||
          host.find_first_of(" /[]") != std::string::npos) {
        return Fail(node, absl::StrCat("found ", KindOf(node),
                                       ", expected a host name or an address, "
                                       "without a port"));
      }
      out = host;
    };
  }
  template <typename Int>
  Setter Integer(Int& out, int64_t min, int64_t max) {
    return [this, &out, min, max](const YAML::Node& node) {
      int64_t value = 0;
      if (!node.IsScalar() || !absl::SimpleAtoi(node.Scalar(), &value) ||
          value < min || value > max) {
        return Fail(node, absl::StrCat("found ", KindOf(node),
                                       ", expected a whole number from ", min,
                                       " to ", max));
      }
      out = static_cast<Int>(value);
    };
  }
  // The mode of a socket that its owner may open.
  Setter Mode(uint32_t& out) {
    return [this, &out](const YAML::Node& node) {
      const std::string text = node.IsScalar() ? node.Scalar() : "";
      uint32_t value = 0;
      const auto [at, error] = std::from_chars(
          text.data(), text.data() + text.size(), value, /*base=*/8);
      if (error != std::errc() || at != text.data() + text.size() ||
          value > 0777 || (value & 0600) != 0600) {
        return Fail(node, absl::StrCat("found ", KindOf(node),
                                       ", expected a mode such as 0660"));
      }
      out = value;
    };
  }
  Setter Weight(double& out) {
    return [this, &out](const YAML::Node& node) {
      double value = 0;
      if (!node.IsScalar() || !absl::SimpleAtod(node.Scalar(), &value) ||
          !std::isfinite(value) || value <= 0) {
        return Fail(node, absl::StrCat("found ", KindOf(node),
                                       ", expected a number above 0"));
      }
      out = value;
    };
  }
  Setter Size(uint64_t& out) {
    return [this, &out](const YAML::Node& node) {
      const std::optional<uint64_t> value =
          node.IsScalar() ? ParseSize(node.Scalar()) : std::nullopt;
      if (!value) {
        return Fail(node, absl::StrCat("found ", KindOf(node),
                                       ", expected a size such as 512 MiB"));
      }
      out = *value;
    };
  }
  Setter Duration(absl::Duration& out) {
    return [this, &out](const YAML::Node& node) {
      absl::Duration value;
      if (!node.IsScalar() || !absl::ParseDuration(node.Scalar(), &value) ||
          value <= absl::ZeroDuration()) {
        return Fail(node, absl::StrCat("found ", KindOf(node),
                                       ", expected a duration such as 200ms"));
      }
      out = value;
    };
  }

  absl::Status status() const {
    if (mistakes_.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrJoin(mistakes_, "\n"));
  }

 private:
  static std::string KindOf(const YAML::Node& node) {
    if (node.IsScalar()) return absl::StrCat("'", node.Scalar(), "'");
    if (node.IsSequence()) return "a list";
    return node.IsMap() ? "a map" : "nothing";
  }
  static std::string Suggest(const std::string& key,
                             const std::map<std::string, Setter>& setters) {
    std::string nearest;
    int least = 4;  // a word 4 edits away is not a typo
    std::vector<std::string> known;
    for (const auto& [name, setter] : setters) {
      known.push_back(name);
      const int distance = EditDistance(key, name);
      if (distance < least) {
        least = distance;
        nearest = name;
      }
    }
    if (!nearest.empty())
      return absl::StrCat("; did you mean '", nearest, "'?");
    return absl::StrCat("; known: ", absl::StrJoin(known, ", "));
  }

  const std::string file_;
  std::vector<std::string> mistakes_;
};

NodeConfig ReadNode(Reader& reader, const YAML::Node& yaml,
                    const NodeConfig& defaults, bool is_default) {
  NodeConfig node = defaults;
  std::string id;
  std::map<std::string, Reader::Setter> setters = {
      {"host", reader.Host(node.host)},
      {"listen", reader.Host(node.listen)},
      {"weight", reader.Weight(node.weight)},
      {"memory", reader.Size(node.memory_bytes)},
      {"data_dir", reader.Text(node.data_dir)},
      {"disk", reader.Size(node.disk_bytes)},
      {"gateway_socket_mode", reader.Mode(node.gateway_socket_mode)},
      {"gateway_socket_group", reader.Text(node.gateway_socket_group)},
      {"calibrations", reader.Text(node.calibrations)}};
  if (!is_default) {
    setters["id"] = reader.Text(id);
    setters["control_port"] = reader.Integer(node.control_port, 1, 65535);
    setters["bulk_port"] = reader.Integer(node.bulk_port, 1, 65535);
    setters["gateway_port"] = reader.Integer(node.gateway_port, 1, 65535);
    setters["gateway_socket"] = reader.Text(node.gateway_socket);
  }
  reader.Map(yaml, is_default ? "defaults" : "a node", setters);
  node.id = NodeId(id);
  node.data_dir = ExpandHome(node.data_dir);
  node.calibrations = ExpandHome(node.calibrations);
  node.gateway_socket = ExpandHome(node.gateway_socket);
  return node;
}

// Checks what needs several fields or several nodes.
void CheckNode(Reader& reader, const YAML::Node& yaml, const NodeConfig& node,
               std::set<std::string>& ids, std::set<std::string>& addresses) {
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

}  // namespace

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
  Reader reader(file);
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
