#include "delivery/lease_session.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "kv/invariants.h"

namespace kdn::delivery {

absl::Status MergeLeases(LeaseOp op, const absl::Status& one,
                         const absl::Status& other) {
  if (absl::IsNotFound(one)) return other;
  if (absl::IsNotFound(other)) return one;
  const bool error_wins = op == LeaseOp::kRemove;
  return one.ok() == error_wins ? other : one;
}

LeaseSession::LeaseSession(LeaseTask task)
    : task_(std::move(task)),
      pending_(task_.deadline),
      merged_(task_.owners.size(),
              absl::NotFoundError("no node holds the chunk")) {}

std::vector<LeaseAction> LeaseSession::TakeActions(absl::Time now) {
  std::vector<LeaseAction> actions;
  if (!std::exchange(begun_, true)) AddAsks(actions);
  if (done()) {
    if (!std::exchange(answered_, true)) {
      if (task_.op == LeaseOp::kRemove) MergeAway();
      actions.emplace_back(AnswerLease{merged_});
    }
  } else if (const std::optional<WakeAt> wake = pending_.TakeWake(now)) {
    actions.emplace_back(*wake);
  }
  KDN_DCHECK_INVARIANTS(*this);
  return actions;
}

void LeaseSession::AddAsks(std::vector<LeaseAction>& actions) {
  std::vector<Ask> asks;
  for (size_t i = 0; i < task_.owners.size(); ++i) {
    for (const NodeId& owner : task_.owners[i]) {
      asks.push_back(Ask{owner, {static_cast<int>(i)}});
    }
  }
  for (auto& [at, chunks] :
       GroupByPartition(asks, task_.shards, task_.partitions)) {
    const int number = pending_.Begin(Ask{at.first, chunks});
    actions.emplace_back(AskLease{number, at.first, at.second,
                                  std::move(chunks), task_.deadline});
  }
}

void LeaseSession::OnAnswer(int number,
                            const std::vector<absl::Status>& statuses) {
  const std::optional<Ask> ask = pending_.End(number);
  if (!ask) return;
  if (statuses.size() != ask->items.size()) {
    MergeAll(*ask,
             absl::InternalError(ask->node.name() +
                                 " answered for a wrong number of chunks"));
    return;
  }
  for (size_t i = 0; i < statuses.size(); ++i) {
    absl::Status& merged = merged_[ask->items[i]];
    merged = MergeLeases(task_.op, merged, statuses[i]);
  }
}

void LeaseSession::OnNoAnswer(int number) {
  const std::optional<Ask> ask = pending_.End(number);
  if (!ask) return;
  MergeAll(*ask, absl::UnavailableError(ask->node.name() + " does not answer"));
}

void LeaseSession::OnTime(absl::Time now, IsLive is_live) {
  const bool is_late = now >= task_.deadline;
  for (const Ask& ask : pending_.EndOverdue(now, is_live)) {
    MergeAll(ask,
             absl::UnavailableError(absl::StrCat(
                 ask.node.name(), is_late ? " does not answer" : " died")));
  }
}

void LeaseSession::MergeAll(const Ask& ask, const absl::Status& status) {
  for (const int chunk : ask.items) {
    merged_[chunk] = MergeLeases(task_.op, merged_[chunk], status);
  }
}

void LeaseSession::MergeAway() {
  for (size_t i = 0; i < merged_.size(); ++i) {
    if (!task_.away[i]) continue;
    merged_[i] = MergeLeases(
        task_.op, merged_[i],
        absl::UnavailableError(absl::StrCat(
            task_.away[i]->name(),
            " is away and may hold a copy: remove the chunk again when it is "
            "back")));
  }
}

void LeaseSession::CheckInvariants() const {
  KDN_CHECK(task_.shards.size() == merged_.size() &&
                task_.away.size() == merged_.size(),
            "each chunk has a shard and a status");
  KDN_CHECK(!answered_ || done(), "the answer is the last action");
}

}  // namespace kdn::delivery
