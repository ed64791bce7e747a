#ifndef KDN_PLACEMENT_INTRODUCTION_H_
#define KDN_PLACEMENT_INTRODUCTION_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "kv/ids.h"
#include "placement/view.h"

namespace kdn::placement {

// The versions of the messages between nodes that one build speaks, both ends
// included. docs/protocol.md, "Versions", says what each version added.
struct PeerVersions {
  uint32_t oldest = 0;
  uint32_t newest = 0;

  bool operator==(const PeerVersions&) const = default;
};

// The versions that this build speaks. A definition of its own file, so that a
// test can link a program that speaks the version before.
PeerVersions PeerVersionsOfThisBuild();

// What placement depends on in a member's entry of the configuration.
struct MemberSettings {
  double weight = 1.0;
  std::string zone;  // empty: none

  bool operator==(const MemberSettings&) const = default;
};

// What a node tells another node before the two exchange data. The settings of
// a cluster have to be the same on both: otherwise the nodes would place one
// chunk on different owners, or read the data of a foreign cluster. Members may
// differ, because a list of members changes while the cluster runs.
struct Introduction {
  std::string cluster;  // the name in the configuration
  NodeId node;          // who speaks
  PeerVersions versions;
  uint32_t replicas = 0;
  uint32_t shards = 0;
  MemberSettings settings;  // of the node that speaks
  // Of the node that is spoken to, as the speaking node's configuration has
  // them; unset when that node is not on the speaking node's list of members.
  std::optional<MemberSettings> peer_settings;

  bool operator==(const Introduction&) const = default;
};

// What the view's node says to `peer`.
Introduction IntroductionTo(const NodeId& peer, const std::string& cluster,
                            const View& view);

// The version that both nodes speak to each other: the newest that both know.
// FAILED_PRECONDITION, naming both nodes and what differs, when the nodes may
// not exchange data. Both nodes come to the same answer.
absl::StatusOr<uint32_t> AgreeOnVersion(const Introduction& ours,
                                        const Introduction& theirs);

}  // namespace kdn::placement

#endif  // KDN_PLACEMENT_INTRODUCTION_H_
