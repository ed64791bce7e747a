#include "placement/join.h"

#include "absl/strings/str_cat.h"
#include "kv/host_port.h"

namespace kdn::placement {

absl::Status JudgeAnswer(const MemberSpec& expected, const JoinClaim& claim) {
  if (claim.id != expected.id) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the node at ",
        HostPort(expected.addresses.host, expected.addresses.control_port),
        " is configured as ", expected.id.name(), " but says that it is '",
        claim.id.name(), "'; check the ports of both nodes"));
  }
  if (claim.partitions == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(expected.id.name(), " has no storage actors"));
  }
  return absl::OkStatus();
}

absl::Status JudgeAsker(const NodeId& self, const NodeId& asker) {
  if (asker.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("a node without an id asks to join ", self.name(),
                     "; give the node an id"));
  }
  if (asker == self) {
    return absl::FailedPreconditionError(
        absl::StrCat("two nodes have the id ", self.name(),
                     "; give one of them another id"));
  }
  return absl::OkStatus();
}

}  // namespace kdn::placement
