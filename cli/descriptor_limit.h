#ifndef KDN_CLI_DESCRIPTOR_LIMIT_H_
#define KDN_CLI_DESCRIPTOR_LIMIT_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace kdn::cli {

// How a node divides the file descriptors that its process may have.
struct DescriptorPlan {
  int sessions = 0;          // of engines at the gateway
  int regions = 0;           // shared memory of the gateway
  int bulk_connections = 0;  // of peers, for objects
  int peers = 0;             // connections to the control port
  // Why the disk tier may run out of descriptors before it has reached its
  // capacity. Empty: it does not.
  std::string warning;
};

// Divides `limit` descriptors. The disk tier keeps one for each segment of
// `disk_bytes`; connections to each of `peers` other nodes take some.
// RESOURCE_EXHAUSTED, naming the limit, when too few are left for
// the connections of engines and peers. Pure.
absl::StatusOr<DescriptorPlan> PlanDescriptors(uint64_t limit,
                                               uint64_t disk_bytes,
                                               uint64_t peers);

// Raises the soft limit of open files of this process to the hard limit, and
// returns the limit that then holds.
uint64_t RaiseDescriptorLimit();

}  // namespace kdn::cli

#endif  // KDN_CLI_DESCRIPTOR_LIMIT_H_
