#ifndef KDN_PLACEMENT_DIALLER_H_
#define KDN_PLACEMENT_DIALLER_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kv/ids.h"
#include "placement/join.h"
#include "placement/member.h"

namespace kdn::placement {

// What the caller does about a peer, and what it reports afterwards.
struct PeerAction {
  enum class Kind {
    // Connect to `addresses`; report OnConnected, OnRefused or OnFailed.
    kConnect,
    // Join over the connection; report OnAnswer, OnRefused or OnFailed.
    kJoin,
    // The peer is up: watch the connection; report OnDown when it is lost.
    kWelcome,
    // The peer is not up any more: fail the requests to it.
    kForget,
    // Log `reason`: the peer stays away until people change something.
    kComplain,
  };
  Kind kind = Kind::kConnect;
  NodeId peer;
  DialId dial;
  Addresses addresses;
  std::string reason;  // of kComplain
};

// Decides when a node dials each of its peers, and which peers are up. A peer
// is dialled until it is up. After a failure or a loss, the peer is dialled
// again `retry` later. A peer that refuses, or that must not be joined, is
// dialled at growing intervals, and each reason is logged once, because such a
// mistake does not go away by itself.
//
// Events and the time in, actions out. Each dial has an id. An event of an
// earlier dial changes nothing, so events may come late. Pure;
// thread-compatible.
class Dialler {
 public:
  struct Options {
    absl::Duration retry = absl::Milliseconds(250);
    // The longest interval after a refusal, as a multiple of `retry`.
    int refusal_factor_max = 16;
  };
  explicit Dialler(Options options) : options_(options) {}

  // Sets the peers to reach: every member but this node. A peer with new
  // addresses is forgotten and dialled at the new addresses.
  void SetPeers(const std::vector<MemberSpec>& peers, absl::Time now);
  void OnConnected(const NodeId& peer, DialId dial);
  void OnAnswer(const NodeId& peer, DialId dial, const JoinClaim& claim,
                absl::Time now);
  // The peer does not prove its name, does not let this node join, or must not
  // be joined.
  void OnRefused(const NodeId& peer, DialId dial, const std::string& reason,
                 absl::Time now);
  // The peer was not reached, or did not answer in time.
  void OnFailed(const NodeId& peer, DialId dial, absl::Time now);
  // The connection to a peer that was up is lost.
  void OnDown(const NodeId& peer, DialId dial, absl::Time now);

  // The actions that are due, to be performed in this order. Call after every
  // event and at wake().
  std::vector<PeerAction> TakeActions(absl::Time now);
  // When the next peer is due to be dialled. InfiniteFuture: no peer waits.
  absl::Time wake() const;

  bool IsUp(const NodeId& peer) const;
  void CheckInvariants() const;

 private:
  enum class Phase { kWaiting, kConnecting, kJoining, kUp };
  struct Peer {
    MemberSpec spec;
    Phase phase = Phase::kWaiting;
    absl::Time due;         // when kWaiting ends
    DialId dial;            // the present dial, or the last one
    int refusals = 0;       // since the peer was last up
    std::string complaint;  // the reason that was logged last
  };
  // The peer of an event. Null when the event is of an earlier dial, or comes
  // in another phase.
  Peer* Find(const NodeId& peer, DialId dial, Phase phase);
  // The same, for a peer that connects or joins.
  Peer* FindDialled(const NodeId& peer, DialId dial);
  void Act(PeerAction::Kind kind, const Peer& peer, std::string reason = "");
  void Wait(Peer& peer, absl::Duration wait, absl::Time now);
  void Refuse(Peer& peer, std::string reason, absl::Time now);

  Options options_;
  std::map<NodeId, Peer> peers_;
  std::vector<PeerAction> actions_;
  DialId last_dial_;
};

}  // namespace kdn::placement

#endif  // KDN_PLACEMENT_DIALLER_H_
