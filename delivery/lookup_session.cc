#include "delivery/lookup_session.h"

#include <map>
#include <optional>
#include <utility>

#include "kv/check.h"
#include "kv/invariants.h"

namespace kdn::delivery {

LookupSession::LookupSession(LookupTask task)
    : shards_(std::move(task.shards)),
      partitions_(std::move(task.partitions)),
      walk_(std::move(task.read_orders)),
      pending_(task.deadline),
      results_(shards_.size()) {}

std::vector<LookupAction> LookupSession::TakeActions(absl::Time now) {
  std::vector<LookupAction> actions;
  AddAsks(actions);
  if (done()) {
    if (!std::exchange(answered_, true)) {
      actions.emplace_back(AnswerLookup{results_});
    }
  } else if (const std::optional<WakeAt> wake = pending_.TakeWake(now)) {
    actions.emplace_back(*wake);
  }
  KDN_DCHECK_INVARIANTS(*this);
  return actions;
}

void LookupSession::AddAsks(std::vector<LookupAction>& actions) {
  std::vector<Ask> asks = walk_.TakeAsks();
  for (; !asks.empty(); asks = walk_.TakeAsks()) {
    for (const Ask& ask : asks) {
      if (!partitions_.contains(ask.node)) {
        MoveOn(ask, absl::UnavailableError(ask.node.name() + " is not alive"));
      }
    }
    for (auto& [at, chunks] : GroupByPartition(asks, shards_, partitions_)) {
      const int number = pending_.Begin(Ask{at.first, chunks});
      actions.emplace_back(AskLookup{number, at.first, at.second,
                                     std::move(chunks), pending_.deadline()});
    }
  }
}

void LookupSession::OnAnswer(int number,
                             const std::vector<LookupResult>& found) {
  const std::optional<Ask> ask = pending_.End(number);
  if (!ask) return;
  if (found.size() != ask->items.size()) {
    MoveOn(*ask, absl::InternalError(ask->node.name() +
                                     " answered for a wrong number of chunks"));
    return;
  }
  for (size_t i = 0; i < found.size(); ++i) {
    const int chunk = ask->items[i];
    if (found[i].hit) {
      results_[chunk] = found[i];
      walk_.Found(chunk);
    } else {
      walk_.MoveOn(chunk, absl::NotFoundError("the node does not hold it"));
    }
  }
}

void LookupSession::OnNoAnswer(int number) {
  const std::optional<Ask> ask = pending_.End(number);
  if (!ask) return;
  MoveOn(*ask, absl::UnavailableError(ask->node.name() + " does not answer"));
}

void LookupSession::OnTime(absl::Time now, IsLive is_live) {
  if (now >= pending_.deadline()) {
    pending_.EndAll();
    walk_.Abandon(absl::DeadlineExceededError("the lookup's deadline passed"));
    return;
  }
  for (const Ask& ask : pending_.EndOverdue(now, is_live)) {
    MoveOn(ask, absl::UnavailableError(ask.node.name() + " died"));
  }
}

void LookupSession::MoveOn(const Ask& ask, const absl::Status& why) {
  for (const int chunk : ask.items) walk_.MoveOn(chunk, why);
}

void LookupSession::CheckInvariants() const {
  walk_.CheckInvariants();
  KDN_CHECK(shards_.size() == results_.size(), "a shard for each chunk");
  KDN_CHECK(done() == pending_.empty(),
            "a lookup is done when no ask is pending");
  KDN_CHECK(!answered_ || done(), "the answer is the last action");
}

}  // namespace kdn::delivery
