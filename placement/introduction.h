#ifndef KDN_PLACEMENT_INTRODUCTION_H_
#define KDN_PLACEMENT_INTRODUCTION_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "kv/ids.h"
#include "placement/view.h"

namespace kdn::placement {

// The versions of the messages between nodes that one build speaks: `oldest`,
// `newest` and all between. docs/protocol.md, "Introductions and versions",
// says what each version added.
struct PeerVersions {
  uint32_t oldest = 0;
  uint32_t newest = 0;

  bool operator==(const PeerVersions&) const = default;
};

// The first version whose nodes tell each other which calibrations they have.
inline constexpr uint32_t kCalibrationsVersion = 7;

// The versions that this build speaks. Defined in a file of its own, so that a
// test can link a program that speaks the previous version.
PeerVersions PeerVersionsOfThisBuild();

// The settings of one member's entry in the configuration that all nodes must
// agree on, because placement depends on them.
struct MemberSettings {
  double weight = 1.0;
  std::string zone;  // as in MemberSpec

  bool operator==(const MemberSettings&) const = default;
};

// What a node tells another node before the two exchange data. Both nodes need
// the same settings of the cluster. Otherwise they would place one chunk on
// different owners, or read the data of a foreign cluster. Their lists of
// members may differ, because a list changes while the cluster runs.
struct Introduction {
  std::string cluster;  // the name in the configuration
  NodeId node;          // the node that speaks
  PeerVersions versions;
  uint32_t replicas = 0;
  uint32_t shards = 0;
  MemberSettings settings;  // of the node that speaks
  // Settings of the node that is spoken to, as the speaking node's
  // configuration has them. Unset when the speaking node does not list that
  // node.
  std::optional<MemberSettings> peer_settings;

  bool operator==(const Introduction&) const = default;
};

// The introduction of the view's node to `peer`.
Introduction IntroductionTo(const NodeId& peer, const std::string& cluster,
                            const View& view);

// Whether two nodes may exchange data, and the version that they then speak to
// each other: the newest that both know. FAILED_PRECONDITION, naming both nodes
// and what differs, when the nodes may not exchange data. Both nodes come to
// the same answer.
//
// A node speaks of calibrations only to peers of version 7
// (kCalibrationsVersion). The format of objects does not depend on the version:
// an object names its own format, a node writes only the newest format, and a
// peer that cannot read an object refuses it (docs/formats.md).
absl::StatusOr<uint32_t> AgreeOnVersion(const Introduction& ours,
                                        const Introduction& theirs);

}  // namespace kdn::placement

#endif  // KDN_PLACEMENT_INTRODUCTION_H_
