#ifndef KDN_CLI_YAML_READER_H_
#define KDN_CLI_YAML_READER_H_

#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace kdn::cli {

// Reads YAML maps field by field, and collects every mistake with its line.
class YamlReader {
 public:
  // `file` is the name in the texts of the mistakes.
  explicit YamlReader(std::string file) : file_(std::move(file)) {}

  // Adds a mistake at the line of `node`.
  void Fail(const YAML::Node& node, const std::string& what);

  // Takes the value of a key, or adds a mistake.
  using Setter = std::function<void(const YAML::Node&)>;
  // Calls the setter of each key. A key that is unknown or repeated is a
  // mistake.
  void Map(const YAML::Node& node, const std::string& what,
           const std::map<std::string, Setter>& setters);

  Setter Text(std::string& out);
  // A path. "~/" and "$HOME/" at its front stand for the user's home.
  Setter Path(std::string& out);
  // A name or an address without a port; IPv6 with or without brackets.
  Setter Host(std::string& out);
  // The mode of a socket that its owner may open.
  Setter Mode(uint32_t& out);
  // true or false.
  Setter Flag(std::optional<bool>& out);
  // A number above 0.
  Setter Weight(double& out);
  Setter Size(uint64_t& out);
  Setter Duration(absl::Duration& out);
  template <typename Int>
  Setter Integer(Int& out, int64_t min, int64_t max) {
    return [this, &out, min, max](const YAML::Node& node) {
      if (const auto value = WholeNumber(node, min, max)) {
        out = static_cast<Int>(*value);
      }
    };
  }

  // INVALID_ARGUMENT with every mistake on a line of its own.
  absl::Status status() const;

 private:
  std::optional<int64_t> WholeNumber(const YAML::Node& node, int64_t min,
                                     int64_t max);
  void FailValue(const YAML::Node& node, const std::string& expected);

  const std::string file_;
  std::vector<std::string> mistakes_;
};

}  // namespace kdn::cli

#endif  // KDN_CLI_YAML_READER_H_
