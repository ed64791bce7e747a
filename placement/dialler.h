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

// Something to do about a peer.
struct PeerAction {
  enum class Kind {
    kConnect,  // connect to `addresses`, then OnConnected or OnFailed
    kJoin,     // join over the connection, then OnAnswer, OnRefused or OnFailed
    kWelcome,  // the peer is up: watch it, then OnDown when it goes
    kForget,   // the peer is up no longer: fail what it was asked for
    kComplain,  // tell people `reason`: nothing changes until they act
  };
  Kind kind = Kind::kConnect;
  NodeId peer;
  DialId dial;
  Addresses addresses;  // kConnect
  std::string reason;   // kComplain
};

// Decides whom a node dials and when, whom it takes for a member, and what the
// loss of a peer means. Every peer is dialled until it is up; after a failure
// or a loss it is dialled again `retry` later. A peer that must not be joined,
// or that refuses, waits longer every time, and people are told once per
// reason: such a mistake does not go away by itself.
//
// Events and the time in, actions out. Each dial has an id, and an event of an
// earlier dial changes nothing, so answers may come late. Pure;
// thread-compatible.
class Dialler {
 public:
  struct Options {
    absl::Duration retry = absl::Milliseconds(250);
    // Longest wait after a refusal, as a multiple of `retry`.
    int refusal_factor_max = 16;
  };
  explicit Dialler(Options options) : options_(options) {}

  // The peers to reach from now on: every member but this node. A peer whose
  // addresses have changed is forgotten and dialled there.
  void SetPeers(const std::vector<MemberSpec>& peers, absl::Time now);
  void OnConnected(const NodeId& peer, DialId dial);
  void OnAnswer(const NodeId& peer, DialId dial, const JoinClaim& claim,
                absl::Time now);
  // The peer will not be joined by this node.
  void OnRefused(const NodeId& peer, DialId dial, const std::string& reason,
                 absl::Time now);
  // Not reached, or no answer in time.
  void OnFailed(const NodeId& peer, DialId dial, absl::Time now);
  // A peer that was welcomed has gone.
  void OnDown(const NodeId& peer, DialId dial, absl::Time now);

  // What is to be done now, in this order; call after every event and at
  // wake().
  std::vector<PeerAction> TakeActions(absl::Time now);
  // When the next peer is due to be dialled; InfiniteFuture if none is.
  absl::Time wake() const;

  bool IsUp(const NodeId& peer) const;
  void CheckInvariants() const;

 private:
  enum class Phase { kWaiting, kConnecting, kJoining, kUp };
  struct Peer {
    MemberSpec spec;
    Phase phase = Phase::kWaiting;
    absl::Time due;  // kWaiting
    DialId dial;     // the present or last one
    int refusals = 0;
    std::string complaint;  // what people were told last
  };
  // Null when the event is of an earlier dial.
  Peer* Find(const NodeId& peer, DialId dial, Phase phase);
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
