#include "cli/yaml_reader.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <set>
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

std::string KindOf(const YAML::Node& node) {
  if (node.IsScalar()) return absl::StrCat("'", node.Scalar(), "'");
  if (node.IsSequence()) return "a list";
  return node.IsMap() ? "a map" : "nothing";
}

// The known key that `key` may be a typo of, or else all known keys.
std::string Suggest(const std::string& key,
                    const std::map<std::string, YamlReader::Setter>& setters) {
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
  if (!nearest.empty()) return absl::StrCat("; did you mean '", nearest, "'?");
  return absl::StrCat("; known: ", absl::StrJoin(known, ", "));
}

}  // namespace

void YamlReader::Fail(const YAML::Node& node, const std::string& what) {
  mistakes_.push_back(
      // The line of an empty document is -1.
      absl::StrCat(file_, ":", std::max(node.Mark().line + 1, 1), ": ", what));
}

void YamlReader::FailValue(const YAML::Node& node,
                           const std::string& expected) {
  Fail(node, absl::StrCat("found ", KindOf(node), ", expected ", expected));
}

void YamlReader::Map(const YAML::Node& node, const std::string& what,
                     const std::map<std::string, Setter>& setters) {
  if (!node.IsMap()) {
    return FailValue(node, absl::StrCat(what, " as a map of keys"));
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

YamlReader::Setter YamlReader::Text(std::string& out) {
  return [this, &out](const YAML::Node& node) {
    if (!node.IsScalar() || node.Scalar().empty()) {
      return FailValue(node, "a word or text");
    }
    out = node.Scalar();
  };
}

YamlReader::Setter YamlReader::Path(std::string& out) {
  return [&out, text = Text(out)](const YAML::Node& node) {
    text(node);
    out = ExpandHome(out);
  };
}

YamlReader::Setter YamlReader::Host(std::string& out) {
  return [this, &out](const YAML::Node& node) {
    const std::string text = node.IsScalar() ? node.Scalar() : "";
    const bool bracketed =
        text.size() > 2 && text.front() == '[' && text.back() == ']';
    const std::string host = bracketed ? text.substr(1, text.size() - 2) : text;
    const auto colons = std::count(host.begin(), host.end(), ':');
    if (host.empty() || colons == 1 ||
        host.find_first_of(" /[]") != std::string::npos) {
      return FailValue(node, "a host name or an address, without a port");
    }
    out = host;
  };
}

YamlReader::Setter YamlReader::Mode(uint32_t& out) {
  return [this, &out](const YAML::Node& node) {
    const std::string text = node.IsScalar() ? node.Scalar() : "";
    uint32_t value = 0;
    const auto [at, error] = std::from_chars(
        text.data(), text.data() + text.size(), value, /*base=*/8);
    if (error != std::errc() || at != text.data() + text.size() ||
        value > 0777 || (value & 0600) != 0600) {
      return FailValue(node, "a mode such as 0660");
    }
    out = value;
  };
}

YamlReader::Setter YamlReader::Flag(std::optional<bool>& out) {
  return [this, &out](const YAML::Node& node) {
    const std::string text = node.IsScalar() ? node.Scalar() : "";
    if (text != "true" && text != "false") {
      return FailValue(node, "true or false");
    }
    out = text == "true";
  };
}

YamlReader::Setter YamlReader::Weight(double& out) {
  return [this, &out](const YAML::Node& node) {
    double value = 0;
    if (!node.IsScalar() || !absl::SimpleAtod(node.Scalar(), &value) ||
        !std::isfinite(value) || value <= 0) {
      return FailValue(node, "a number above 0");
    }
    out = value;
  };
}

YamlReader::Setter YamlReader::Size(uint64_t& out) {
  return [this, &out](const YAML::Node& node) {
    const std::optional<uint64_t> value =
        node.IsScalar() ? ParseSize(node.Scalar()) : std::nullopt;
    if (!value) return FailValue(node, "a size such as 512 MiB");
    out = *value;
  };
}

YamlReader::Setter YamlReader::Duration(absl::Duration& out) {
  return [this, &out](const YAML::Node& node) {
    absl::Duration value;
    if (!node.IsScalar() || !absl::ParseDuration(node.Scalar(), &value) ||
        value <= absl::ZeroDuration()) {
      return FailValue(node, "a duration such as 200ms");
    }
    out = value;
  };
}

std::optional<int64_t> YamlReader::WholeNumber(const YAML::Node& node,
                                               int64_t min, int64_t max) {
  int64_t value = 0;
  if (node.IsScalar() && absl::SimpleAtoi(node.Scalar(), &value) &&
      value >= min && value <= max) {
    return value;
  }
  FailValue(node, absl::StrCat("a whole number from ", min, " to ", max));
  return std::nullopt;
}

absl::Status YamlReader::status() const {
  if (mistakes_.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(mistakes_, "\n"));
}

}  // namespace kdn::cli
