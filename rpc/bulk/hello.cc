#include "rpc/bulk/hello.h"

#include <cmath>
#include <utility>

#include "absl/status/status.h"

namespace kdn::rpc {
namespace {

void ToWire(const placement::MemberSettings& settings,
            peer::MemberSettings::Builder out) {
  out.setWeight(settings.weight);
  out.setZone(settings.zone);
}

absl::StatusOr<placement::MemberSettings> FromWire(
    peer::MemberSettings::Reader settings) {
  const double weight = settings.getWeight();
  if (!std::isfinite(weight) || weight <= 0) {
    return absl::InvalidArgumentError(
        "the weight of a member is not finite and positive");
  }
  return placement::MemberSettings{weight, settings.getZone().cStr()};
}

}  // namespace

Introduce IntroduceByNameOnly(NodeId self) {
  return [self = std::move(self)](const NodeId&) {
    placement::Introduction introduction;
    introduction.node = self;
    introduction.versions = placement::PeerVersionsOfThisBuild();
    return introduction;
  };
}

void ToWire(const placement::Introduction& introduction,
            peer::Introduction::Builder out) {
  out.setCluster(introduction.cluster);
  out.setNode(introduction.node.name());
  out.setOldestVersion(introduction.versions.oldest);
  out.setNewestVersion(introduction.versions.newest);
  out.setReplicas(introduction.replicas);
  out.setShards(introduction.shards);
  ToWire(introduction.settings, out.initSettings());
  if (introduction.peer_settings) {
    ToWire(*introduction.peer_settings, out.initPeerSettings());
  }
}

absl::StatusOr<placement::Introduction> FromWire(
    peer::Introduction::Reader introduction) {
  placement::Introduction out{
      .cluster = introduction.getCluster().cStr(),
      .node = NodeId(introduction.getNode().cStr()),
      .versions = {.oldest = introduction.getOldestVersion(),
                   .newest = introduction.getNewestVersion()},
      .replicas = introduction.getReplicas(),
      .shards = introduction.getShards(),
      .settings = {},
      .peer_settings = {}};
  if (out.node.empty() || out.versions.oldest > out.versions.newest) {
    return absl::InvalidArgumentError(
        "the introduction has no node name, or its oldest version is above its "
        "newest");
  }
  absl::StatusOr<placement::MemberSettings> settings =
      FromWire(introduction.getSettings());
  if (!settings.ok()) return settings.status();
  out.settings = *std::move(settings);
  if (introduction.hasPeerSettings()) {
    settings = FromWire(introduction.getPeerSettings());
    if (!settings.ok()) return settings.status();
    out.peer_settings = *std::move(settings);
  }
  return out;
}

absl::Status JudgeHello(const placement::Introduction& ours,
                        peer::Hello::Reader hello) {
  const absl::StatusOr<placement::Introduction> theirs =
      FromWire(hello.getIntroduction());
  if (!theirs.ok()) return theirs.status();
  return placement::AgreeOnVersion(ours, *theirs).status();
}

}  // namespace kdn::rpc
