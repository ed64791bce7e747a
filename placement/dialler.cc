#include "placement/dialler.h"

#include <algorithm>
#include <utility>

#include "kv/check.h"

namespace kdn::placement {

using Kind = PeerAction::Kind;

void Dialler::SetPeers(const std::vector<MemberSpec>& peers, absl::Time now) {
  std::map<NodeId, Peer> before = std::exchange(peers_, {});
  for (const MemberSpec& spec : peers) {
    const auto known = before.find(spec.id);
    if (known != before.end() &&
        known->second.spec.addresses == spec.addresses) {
      Peer& peer = peers_[spec.id] = std::move(known->second);
      peer.spec = spec;
      before.erase(known);
      continue;
    }
    Peer& peer = peers_[spec.id];
    peer.spec = spec;
    peer.due = now;
  }
  for (const auto& [id, gone] : before) {
    if (gone.phase == Phase::kUp) Act(Kind::kForget, gone);
  }
}

void Dialler::OnConnected(const NodeId& id, DialId dial) {
  Peer* peer = Find(id, dial, Phase::kConnecting);
  if (peer == nullptr) return;
  peer->phase = Phase::kJoining;
  Act(Kind::kJoin, *peer);
}

void Dialler::OnAnswer(const NodeId& id, DialId dial, const JoinClaim& claim,
                       absl::Time now) {
  Peer* peer = Find(id, dial, Phase::kJoining);
  if (peer == nullptr) return;
  const absl::Status verdict = JudgeAnswer(peer->spec, claim);
  if (!verdict.ok()) {
    return Refuse(*peer, std::string(verdict.message()), now);
  }
  peer->phase = Phase::kUp;
  peer->refusals = 0;
  peer->complaint.clear();
  Act(Kind::kWelcome, *peer);
}

void Dialler::OnRefused(const NodeId& id, DialId dial,
                        const std::string& reason, absl::Time now) {
  Peer* peer = FindDialled(id, dial);
  if (peer != nullptr) Refuse(*peer, reason, now);
}

void Dialler::OnFailed(const NodeId& id, DialId dial, absl::Time now) {
  Peer* peer = FindDialled(id, dial);
  if (peer != nullptr) Wait(*peer, options_.retry, now);
}

void Dialler::OnDown(const NodeId& id, DialId dial, absl::Time now) {
  Peer* peer = Find(id, dial, Phase::kUp);
  if (peer == nullptr) return;
  Act(Kind::kForget, *peer);
  Wait(*peer, options_.retry, now);
}

std::vector<PeerAction> Dialler::TakeActions(absl::Time now) {
  for (auto& [id, peer] : peers_) {
    if (peer.phase != Phase::kWaiting || peer.due > now) continue;
    peer.phase = Phase::kConnecting;
    peer.dial = last_dial_ = DialId(last_dial_.value() + 1);
    Act(Kind::kConnect, peer);
  }
  return std::exchange(actions_, {});
}

absl::Time Dialler::wake() const {
  absl::Time wake = absl::InfiniteFuture();
  for (const auto& [id, peer] : peers_) {
    if (peer.phase == Phase::kWaiting) wake = std::min(wake, peer.due);
  }
  return wake;
}

bool Dialler::IsUp(const NodeId& id) const {
  const auto peer = peers_.find(id);
  return peer != peers_.end() && peer->second.phase == Phase::kUp;
}

Dialler::Peer* Dialler::Find(const NodeId& id, DialId dial, Phase phase) {
  const auto peer = peers_.find(id);
  if (peer == peers_.end() || peer->second.dial != dial ||
      peer->second.phase != phase) {
    return nullptr;
  }
  return &peer->second;
}

Dialler::Peer* Dialler::FindDialled(const NodeId& id, DialId dial) {
  Peer* peer = Find(id, dial, Phase::kConnecting);
  return peer != nullptr ? peer : Find(id, dial, Phase::kJoining);
}

void Dialler::Act(Kind kind, const Peer& peer, std::string reason) {
  actions_.push_back(PeerAction{kind, peer.spec.id, peer.dial,
                                peer.spec.addresses, std::move(reason)});
}

void Dialler::Wait(Peer& peer, absl::Duration wait, absl::Time now) {
  peer.phase = Phase::kWaiting;
  peer.due = now + wait;
}

void Dialler::Refuse(Peer& peer, std::string reason, absl::Time now) {
  const int factor = 1 << std::min(peer.refusals++, 16);
  Wait(peer, std::min(factor, options_.refusal_factor_max) * options_.retry,
       now);
  if (peer.complaint == reason) return;
  peer.complaint = reason;
  Act(Kind::kComplain, peer, std::move(reason));
}

void Dialler::CheckInvariants() const {
  for (const auto& [id, peer] : peers_) {
    KDN_CHECK(peer.spec.id == id, "a peer is listed under its own id");
    KDN_CHECK(peer.dial <= last_dial_,
              "no dial has a greater id than the last one");
    KDN_CHECK(peer.phase == Phase::kWaiting || peer.dial != DialId(),
              "only a peer that was dialled can answer");
    KDN_CHECK(peer.phase != Phase::kUp || peer.complaint.empty(),
              "there is no complaint about a peer that is up");
  }
}

}  // namespace kdn::placement
