#include "delivery/calibration_exchange.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/check.h"

namespace kdn::delivery {

using codec::CalibrationId;

void CalibrationExchange::TellSoon(Peer& peer) {
  peer.tell_at = absl::InfinitePast();
  peer.tell_again = peer.telling;
}

void CalibrationExchange::OnPeerUp(const NodeId& peer) {
  peers_[peer] = Peer();
  for (Need& need : needs_) need.unheard.insert(peer);
}

void CalibrationExchange::OnPeerDown(const NodeId& peer) {
  peers_.erase(peer);
  for (Need& need : needs_) need.unheard.erase(peer);
}

void CalibrationExchange::OnPeerHas(const NodeId& peer, CalibrationIds ids) {
  const auto found = peers_.find(peer);
  if (found != peers_.end()) found->second.has = std::move(ids);
}

void CalibrationExchange::OnAnswer(const NodeId& peer, CalibrationIds ids,
                                   absl::Time now) {
  const auto found = peers_.find(peer);
  if (found == peers_.end()) return;
  Peer& at = found->second;
  at.has = std::move(ids);
  at.telling = false;
  at.tell_at = std::exchange(at.tell_again, false) ? absl::InfinitePast()
                                                   : now + options_.tell;
  for (Need& need : needs_) need.unheard.erase(peer);
}

void CalibrationExchange::OnNoAnswer(const NodeId& peer, absl::Time now) {
  const auto found = peers_.find(peer);
  if (found == peers_.end()) return;
  found->second.telling = false;
  found->second.tell_again = false;
  found->second.tell_at = now + options_.retry;
}

void CalibrationExchange::OnHeld(const CalibrationId& id) {
  if (!held_.insert(id).second) return;
  failures_.erase(id);
  for (auto& [name, peer] : peers_) TellSoon(peer);
}

void CalibrationExchange::OnFetched(const CalibrationId& id, absl::Time now,
                                    bool refused) {
  fetching_.erase(id);
  if (held_.count(id) > 0) return;
  Failures& failures = failures_[id];
  const absl::Duration pause =
      options_.retry * static_cast<double>(1u << std::min(failures.count, 20));
  ++failures.count;
  failures.refused = refused;
  failures.not_before =
      now + (refused ? options_.refused : std::min(pause, options_.retry_max));
}

void CalibrationExchange::OnStore(uint64_t call, const CalibrationId& id,
                                  int copies, absl::Time deadline) {
  KDN_CHECK(held_.count(id) > 0, "a calibration is kept before it is stored");
  stores_.push_back({call, id, copies, deadline});
}

void CalibrationExchange::OnNeed(uint64_t call, const CalibrationId& id,
                                 absl::Time deadline) {
  Need need{call, id, deadline, {}};
  for (auto& [name, peer] : peers_) {
    need.unheard.insert(name);
    TellSoon(peer);
  }
  needs_.push_back(std::move(need));
}

std::vector<NodeId> CalibrationExchange::HoldersOf(
    const CalibrationId& id) const {
  std::vector<NodeId> holders;
  for (const auto& [name, peer] : peers_) {
    if (peer.has.count(id) > 0) holders.push_back(name);
  }
  return holders;
}

CalibrationIds CalibrationExchange::Missing() const {
  CalibrationIds missing;
  for (const auto& [name, peer] : peers_) {
    std::set_difference(peer.has.begin(), peer.has.end(), held_.begin(),
                        held_.end(), std::inserter(missing, missing.end()));
  }
  return missing;
}

bool CalibrationExchange::HasFailed(const CalibrationId& id,
                                    absl::Time now) const {
  const auto found = failures_.find(id);
  if (found == failures_.end() || fetching_.count(id) > 0) return false;
  const Failures& failures = found->second;
  const auto tried = static_cast<size_t>(failures.count);
  return failures.not_before > now &&
         (failures.refused || tried >= HoldersOf(id).size());
}

bool CalibrationExchange::IsNeeded(const CalibrationId& id) const {
  return std::any_of(needs_.begin(), needs_.end(),
                     [&](const Need& need) { return need.id == id; });
}

bool CalibrationExchange::IsOver(const Store& store, absl::Time now,
                                 absl::Status* status) const {
  const size_t holders = 1 + HoldersOf(store.id).size();
  const size_t nodes = 1 + peers_.size();
  *status = absl::OkStatus();
  if (holders == nodes) return true;
  if (now < store.deadline) return false;
  if (holders < std::min(nodes, static_cast<size_t>(store.copies))) {
    *status = absl::UnavailableError(absl::StrCat(
        "calibration ", ShortHex(store.id), " is on ", holders, " of ", nodes,
        " live nodes so far, which get it from each other: store it again to "
        "be sure"));
  }
  return true;
}

bool CalibrationExchange::IsOver(const Need& need, absl::Time now,
                                 absl::Status* status) const {
  *status = absl::OkStatus();
  if (held_.count(need.id) > 0) return true;
  const bool nowhere = need.unheard.empty() && fetching_.count(need.id) == 0 &&
                       HoldersOf(need.id).empty();
  if (!nowhere && !HasFailed(need.id, now) && now < need.deadline) {
    return false;
  }
  *status =
      absl::NotFoundError(absl::StrCat("no live node has given calibration ",
                                       ShortHex(need.id), " to this one"));
  return true;
}

template <typename Call>
void CalibrationExchange::EndCalls(
    std::vector<Call>& calls, absl::Time now,
    std::vector<CalibrationAction>& actions) const {
  std::vector<Call> open;
  for (Call& call : calls) {
    absl::Status status;
    if (IsOver(call, now, &status)) {
      actions.push_back(AnswerCalibration{call.call, std::move(status)});
    } else {
      open.push_back(std::move(call));
    }
  }
  calls = std::move(open);
}

void CalibrationExchange::Tell(absl::Time now,
                               std::vector<CalibrationAction>& actions) {
  for (auto& [name, peer] : peers_) {
    if (peer.telling || peer.tell_at > now) continue;
    peer.telling = true;
    actions.push_back(TellCalibrations{name, held_});
  }
}

void CalibrationExchange::Fetch(absl::Time now,
                                std::vector<CalibrationAction>& actions) {
  const CalibrationIds missing = Missing();
  std::vector<CalibrationId> order(missing.begin(), missing.end());
  std::stable_partition(
      order.begin(), order.end(),
      [this](const CalibrationId& id) { return IsNeeded(id); });
  for (const CalibrationId& id : order) {
    if (fetching_.size() >= static_cast<size_t>(options_.fetches_max)) return;
    const auto failed = failures_.find(id);
    const Failures failures =
        failed == failures_.end() ? Failures() : failed->second;
    if (fetching_.count(id) > 0 || failures.not_before > now) continue;
    // After a failure, the next holder is asked.
    const std::vector<NodeId> holders = HoldersOf(id);
    const NodeId& peer =
        holders[static_cast<size_t>(failures.count) % holders.size()];
    fetching_.insert(id);
    actions.push_back(FetchCalibration{peer, id, now + options_.fetch});
  }
}

std::vector<CalibrationAction> CalibrationExchange::TakeActions(
    absl::Time now) {
  std::vector<CalibrationAction> actions;
  Tell(now, actions);
  Fetch(now, actions);
  EndCalls(stores_, now, actions);
  EndCalls(needs_, now, actions);
  return actions;
}

absl::Time CalibrationExchange::wake() const {
  absl::Time wake = absl::InfiniteFuture();
  for (const auto& [name, peer] : peers_) {
    if (!peer.telling) wake = std::min(wake, peer.tell_at);
  }
  const bool full =
      fetching_.size() >= static_cast<size_t>(options_.fetches_max);
  for (const auto& [id, failures] : failures_) {
    // The end of a fetch is an event of its own.
    if (full) break;
    if (fetching_.count(id) == 0 && !HoldersOf(id).empty()) {
      wake = std::min(wake, failures.not_before);
    }
  }
  for (const Store& store : stores_) wake = std::min(wake, store.deadline);
  for (const Need& need : needs_) wake = std::min(wake, need.deadline);
  return wake;
}

void CalibrationExchange::CheckInvariants() const {
  KDN_CHECK(fetching_.size() <= static_cast<size_t>(options_.fetches_max),
            "too many fetches at one time");
  for (const auto& [id, failures] : failures_) {
    KDN_CHECK(held_.count(id) == 0, "a held calibration has failed fetches");
  }
  for (const Need& need : needs_) {
    for (const NodeId& peer : need.unheard) {
      KDN_CHECK(peers_.count(peer) > 0, "a call waits for a dead peer");
    }
  }
}

}  // namespace kdn::delivery
