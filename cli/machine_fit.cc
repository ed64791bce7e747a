#include "cli/machine_fit.h"

#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace kdn::cli {
namespace {

std::string SizeText(uint64_t bytes) {
  constexpr double kGiB = 1u << 30;
  return absl::StrFormat("%.1f GiB", static_cast<double>(bytes) / kGiB);
}

// The limit in a memory.max file; nullopt for "max" and where there is none.
std::optional<uint64_t> LimitIn(const std::string& file) {
  std::string text;
  uint64_t bytes = 0;
  if (!(std::ifstream(file) >> text) || !absl::SimpleAtoi(text, &bytes)) {
    return std::nullopt;
  }
  return bytes;
}

// The memory that the control groups of this process leave it: the least limit
// of its group and the groups around that.
std::optional<uint64_t> ControlGroupLimit() {
  std::optional<uint64_t> least;
  std::ifstream groups("/proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {
    if (!absl::StartsWith(line, "0::")) continue;
    for (std::filesystem::path group = line.substr(3); !group.empty();
         group = group.parent_path()) {
      const auto limit = LimitIn(
          absl::StrCat("/sys/fs/cgroup", group.string(), "/memory.max"));
      if (limit) least = std::min(*limit, least.value_or(*limit));
      if (group == group.root_path()) break;
    }
  }
  return least;
}

std::optional<FileSystem> FileSystemOf(const std::string& path) {
  std::error_code error;
  std::filesystem::path at = std::filesystem::absolute(path, error);
  // A data directory is made at the first start.
  while (!std::filesystem::exists(at, error) && at != at.root_path()) {
    at = at.parent_path();
  }
  struct stat place {};
  struct statvfs size {};
  if (stat(at.c_str(), &place) != 0 || statvfs(at.c_str(), &size) != 0) {
    return std::nullopt;
  }
  return FileSystem{place.st_dev, uint64_t{size.f_blocks} * size.f_frsize};
}

std::string NamesOf(absl::Span<const NodeConfig* const> nodes) {
  return absl::StrJoin(nodes, ", ",
                       [](std::string* out, const NodeConfig* node) {
                         out->append(node->id.name());
                       });
}

// What `nodes` take of one thing, and what there is of it.
std::string TooMuch(absl::Span<const NodeConfig* const> nodes,
                    const std::string& setting, uint64_t wanted,
                    const std::string& place, uint64_t there) {
  return absl::StrCat(NamesOf(nodes), ": `", setting, "` is ", SizeText(wanted),
                      nodes.size() > 1 ? " together" : "", ", and ", place,
                      " has ", SizeText(there), ": lower `", setting, "`");
}

}  // namespace

Machine ThisMachine() {
  Machine machine;
  machine.memory_bytes = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) *
                         static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  if (const auto limit = ControlGroupLimit()) {
    machine.memory_bytes = std::min(machine.memory_bytes, *limit);
  }
  machine.file_system = FileSystemOf;
  return machine;
}

absl::Status CheckMemory(absl::Span<const NodeConfig> nodes,
                         const Machine& machine) {
  std::vector<const NodeConfig*> all;
  uint64_t wanted = 0;
  for (const NodeConfig& node : nodes) {
    all.push_back(&node);
    wanted += node.memory_bytes;
  }
  if (wanted <= machine.memory_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      TooMuch(all, "memory", wanted, "this machine", machine.memory_bytes));
}

absl::Status CheckDisk(absl::Span<const NodeConfig> nodes,
                       const Machine& machine) {
  struct Disk {
    std::vector<const NodeConfig*> nodes;
    uint64_t wanted = 0;
    uint64_t there = 0;
  };
  std::map<uint64_t, Disk> disks;  // by file system
  for (const NodeConfig& node : nodes) {
    if (node.data_dir.empty()) continue;
    const auto file_system = machine.file_system(node.data_dir);
    if (!file_system) continue;
    Disk& disk = disks[file_system->id];
    disk.nodes.push_back(&node);
    disk.wanted += node.disk_bytes;
    disk.there = file_system->bytes;
  }
  std::vector<std::string> mistakes;
  for (const auto& [id, disk] : disks) {
    if (disk.wanted <= disk.there) continue;
    mistakes.push_back(TooMuch(
        disk.nodes, "disk", disk.wanted,
        absl::StrCat("the file system of ", disk.nodes.front()->data_dir),
        disk.there));
  }
  if (mistakes.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(mistakes, "\n"));
}

std::vector<NodeConfig> LoopbackNodes(const ClusterConfig& config) {
  std::vector<NodeConfig> nodes;
  for (const NodeConfig& node : config.nodes) {
    if (IsLoopbackHost(node.host)) {
      nodes.push_back(node);
    }
  }
  return nodes;
}

}  // namespace kdn::cli
