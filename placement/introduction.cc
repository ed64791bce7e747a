#include "placement/introduction.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace kdn::placement {
namespace {

std::string NameOf(const Introduction& node) {
  return absl::StrCat("node ", node.node.name(), " of cluster '", node.cluster,
                      "'");
}

absl::Status Differ(const Introduction& ours, const Introduction& theirs,
                    const std::string& what) {
  return absl::FailedPreconditionError(absl::StrCat(
      NameOf(ours), " and ", NameOf(theirs), " exchange no data: ", what));
}

template <typename T>
std::string Both(const char* what, const T& ours, const T& theirs) {
  return absl::StrCat(what, " is ", ours, " here and ", theirs,
                      " there; all nodes of a cluster need the same");
}

std::string TextOf(const MemberSettings& settings) {
  return absl::StrCat("weight ", settings.weight,
                      settings.zone.empty() ? "" : " in zone ", settings.zone);
}

std::string RangeOf(const PeerVersions& versions) {
  return absl::StrCat(versions.oldest, " to ", versions.newest);
}

}  // namespace

Introduction IntroductionTo(const NodeId& peer, const std::string& cluster,
                            const View& view) {
  const auto settings_of =
      [&view](const NodeId& node) -> std::optional<MemberSettings> {
    const Member* member = view.Find(node);
    if (member == nullptr) return std::nullopt;
    return MemberSettings{member->spec.weight, member->spec.zone};
  };
  return {.cluster = cluster,
          .node = view.self(),
          .versions = PeerVersionsOfThisBuild(),
          .replicas = static_cast<uint32_t>(view.parts().replicas),
          .shards = kShards,
          .settings = settings_of(view.self()).value_or(MemberSettings()),
          .peer_settings = settings_of(peer)};
}

absl::StatusOr<uint32_t> AgreeOnVersion(const Introduction& ours,
                                        const Introduction& theirs) {
  if (ours.cluster != theirs.cluster) {
    return Differ(ours, theirs,
                  "these are two clusters; check host and ports of both "
                  "configurations");
  }
  const uint32_t version =
      std::min(ours.versions.newest, theirs.versions.newest);
  if (version < std::max(ours.versions.oldest, theirs.versions.oldest)) {
    return Differ(
        ours, theirs,
        absl::StrCat("this node speaks versions ", RangeOf(ours.versions),
                     ", the other node ", RangeOf(theirs.versions),
                     "; upgrade one version at a time"));
  }
  if (ours.replicas != theirs.replicas) {
    return Differ(ours, theirs,
                  Both("'replicas'", ours.replicas, theirs.replicas));
  }
  if (ours.shards != theirs.shards) {
    return Differ(ours, theirs,
                  Both("the number of shards", ours.shards, theirs.shards));
  }
  for (const auto& [speaker, listener] :
       {std::pair(&ours, &theirs), std::pair(&theirs, &ours)}) {
    const auto& believed = speaker->peer_settings;
    if (believed && *believed != listener->settings) {
      return Differ(
          ours, theirs,
          absl::StrCat(listener->node.name(), " is configured with ",
                       TextOf(listener->settings), " on its own host and with ",
                       TextOf(*believed), " on the host of ",
                       speaker->node.name(),
                       "; all nodes of a cluster need the same configuration"));
    }
  }
  return version;
}

}  // namespace kdn::placement
