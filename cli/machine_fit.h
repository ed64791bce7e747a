#ifndef KDN_CLI_MACHINE_FIT_H_
#define KDN_CLI_MACHINE_FIT_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "cli/config.h"

namespace kdn::cli {

struct FileSystem {
  uint64_t id = 0;
  uint64_t bytes = 0;  // its size, used or not
};

// The machine that nodes run on.
struct Machine {
  // RAM, or the limit of the process's control group if that is less.
  uint64_t memory_bytes = 0;
  // The file system that a path lies on, or would lie on. Nullopt when the
  // system does not say.
  std::function<std::optional<FileSystem>(const std::string& path)> file_system;
};
Machine ThisMachine();

// Whether nodes that all run on the machine fit it. INVALID_ARGUMENT when they
// have more `memory` than the machine.
absl::Status CheckMemory(absl::Span<const NodeConfig> nodes,
                         const Machine& machine);
// INVALID_ARGUMENT when they have more `disk` on a file system than its size,
// with a line for each file system. They can run: a full file system makes the
// disk tier evict, but long before the configured size.
absl::Status CheckDisk(absl::Span<const NodeConfig> nodes,
                       const Machine& machine);

// The nodes of a configuration that run on this machine whichever it is: those
// whose host is a loopback address or "localhost".
std::vector<NodeConfig> LoopbackNodes(const ClusterConfig& config);

}  // namespace kdn::cli

#endif  // KDN_CLI_MACHINE_FIT_H_
