#include "cli/descriptor_limit.h"

#include <sys/resource.h>

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kv/work_class.h"
#include "rpc/bulk/client.h"
#include "rpc/bulk/server.h"
#include "rpc/gateway/gateway.h"
#include "storage/disk_tier.h"

namespace kdn::cli {
namespace {

// An idle node with a disk tier has about 60 descriptors open: event loops,
// disk threads, the index, the log. The index opens more files as it grows.
constexpr uint64_t kOfTheProcess = 160;
// Of connections to the control port, at least and at most. Each takes two
// descriptors: one for TLS, one for CAF.
constexpr uint64_t kOfControl = 64;
constexpr uint64_t kOfControlMax = 1024;
// Connections of engines without a session, and of processes that fetch the
// descriptor of a region.
constexpr uint64_t kOfGuests =
    rpc::Gateway::kBesideSessions + rpc::Gateway::kDeskVisitorsMax;
constexpr uint64_t kConnectionsMin = 32;
constexpr uint64_t kRegionsMax = 16384;

// Of the connections that this node opens to one other node: two of a
// connection to its control port, and those for objects.
uint64_t OfEachPeer() {
  const rpc::BulkTransport::Options bulk;
  uint64_t count = 2;
  for (const WorkClass work_class : kWorkClasses) {
    count += static_cast<uint64_t>(bulk.connections_per_peer_max[work_class]);
  }
  return count;
}

uint64_t SegmentsOf(uint64_t disk_bytes) {
  if (disk_bytes == 0) return 0;
  const uint64_t segment =
      std::min(storage::DiskTier::Options().segment_bytes, disk_bytes / 8);
  return disk_bytes / std::max<uint64_t>(segment, 1) + 2;
}

}  // namespace

absl::StatusOr<DescriptorPlan> PlanDescriptors(uint64_t limit,
                                               uint64_t disk_bytes,
                                               uint64_t peers) {
  const uint64_t fixed =
      kOfTheProcess + kOfControl + kOfGuests + peers * OfEachPeer();
  const uint64_t least = fixed + 4 * kConnectionsMin;
  if (limit < least) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the process may open ", limit, " files, a node needs at least ", least,
        ": raise the hard limit (ulimit -Hn, LimitNOFILE of systemd)"));
  }
  DescriptorPlan plan;
  const uint64_t segments = SegmentsOf(disk_bytes);
  uint64_t left = limit - fixed;
  if (segments + 4 * kConnectionsMin > left) {
    plan.warning = absl::StrCat(
        "a disk of ", disk_bytes, " bytes needs ", segments,
        " files, but the process may open ", limit,
        ": raise the hard limit (ulimit -Hn, LimitNOFILE of systemd) to ",
        fixed + segments + 4 * kConnectionsMin,
        ", or the disk tier stops before it is full");
  }
  left -= std::min(segments, left - 4 * kConnectionsMin);
  const auto quarter = [left](uint64_t most) {
    return static_cast<int>(std::min(left / 4, most));
  };
  plan.sessions = quarter(rpc::Gateway::Options().sessions_max);
  plan.bulk_connections = quarter(rpc::BulkServer::Options().connections_max);
  plan.regions = quarter(kRegionsMax);
  plan.peers =
      (static_cast<int>(kOfControl) + quarter(kOfControlMax - kOfControl)) / 2;
  return plan;
}

uint64_t RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  const rlim_t before = limit.rlim_cur;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return before;
  return limit.rlim_cur;
}

}  // namespace kdn::cli
