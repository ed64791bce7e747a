#include "delivery/store_session.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "kv/invariants.h"

namespace kdn::delivery {

StoreSession::StoreSession(StoreTask task) : task_(std::move(task)) {
  KDN_CHECK(!task_.owners.empty(), "a shard has at least one owner");
  KDN_CHECK(task_.copies >= 1, "an object has at least one copy");
  receipt_.key = task_.key;
  receipt_.bytes = task_.bytes;
}

std::vector<StoreAction> StoreSession::TakeActions(absl::Time now) {
  std::vector<StoreAction> actions;
  if (!std::exchange(begun_, true)) {
    actions.emplace_back(AwaitDeadline{task_.deadline});
  }
  for (const NodeId& node : TakeSends()) actions.push_back(SendTo(node, now));
  if (decided_ && !std::exchange(answered_, true)) {
    actions.emplace_back(AnswerStore{answer_});
  }
  if (done() && !std::exchange(over_, true)) {
    actions.emplace_back(StoreIsOver{});
  }
  KDN_DCHECK_INVARIANTS(*this);
  return actions;
}

std::vector<NodeId> StoreSession::TakeSends() {
  std::vector<NodeId> sends;
  // One at a time until an owner holds the object: it decides which store wins.
  const size_t wanted =
      receipt_.holders.empty() ? 1 : static_cast<size_t>(task_.copies);
  while (receipt_.holders.size() + sending_.size() < wanted &&
         next_ < task_.owners.size()) {
    sending_.insert(task_.owners[next_]);
    sends.push_back(task_.owners[next_++]);
  }
  return sends;
}

StoreAction StoreSession::SendTo(const NodeId& node, absl::Time now) const {
  const absl::Time deadline = AttemptDeadline(now, task_.deadline);
  if (lost()) {
    return CopyFrom{receipt_.holders.front(), node, receipt_.version, deadline,
                    std::max(task_.expires - now, absl::ZeroDuration())};
  }
  if (node != task_.self) return PushTo{node, deadline};
  if (task_.built == BuildPlace::kPassing) return CommitHere{deadline};
  return CommitHere{};
}

void StoreSession::OnSent(const NodeId& node,
                          const absl::StatusOr<PushReceipt>& result) {
  KDN_CHECK(sending_.erase(node) == 1,
            "an answer of a node that was not asked");
  if (!result.ok()) {
    last_error_ = result.status();
  } else if (receipt_.holders.empty()) {
    receipt_.version = result->version;
    receipt_.existed = result->existed;
    receipt_.holders.push_back(node);
  } else if (result->version == receipt_.version) {
    receipt_.holders.push_back(node);
  } else {
    // The node has kept an older version. Reads go to the first owner's
    // version, so the older version is not counted as a copy.
    last_error_ = absl::FailedPreconditionError(
        absl::StrCat(node.name(), " holds another version of this chunk"));
  }
  Decide();
}

int StoreSession::wanted_acks() const {
  return task_.durability == Durability::kCache ? 1 : task_.copies;
}

void StoreSession::Decide() {
  if (decided_) return;
  if (static_cast<int>(receipt_.holders.size()) >= wanted_acks()) {
    decided_ = true;
    answer_ = receipt_;
    // The winning store makes the copies beyond the promise.
    if (lost()) next_ = task_.owners.size();
    return;
  }
  if (!sending_.empty() || next_ < task_.owners.size()) return;
  decided_ = true;
  answer_ = TooFewCopies();
}

absl::Status StoreSession::TooFewCopies() const {
  const absl::Status why = last_error_.ok()
                               ? absl::UnavailableError(absl::StrCat(
                                     "live owners: ", task_.owners.size(),
                                     "; start the other nodes"))
                               : last_error_;
  // UNIMPLEMENTED: the node is too old for the object's format, as it would be
  // for a store through any other node.
  const bool is_callers =
      absl::IsResourceExhausted(why) || absl::IsInvalidArgument(why) ||
      absl::IsFailedPrecondition(why) || absl::IsUnimplemented(why);
  return absl::Status(
      is_callers ? why.code() : absl::StatusCode::kUnavailable,
      absl::StrCat(receipt_.holders.size(), " of ", wanted_acks(),
                   " copies are held; last error: ", why.message()));
}

void StoreSession::OnDeadline() {
  if (decided_) return;
  decided_ = true;
  next_ = task_.owners.size();
  answer_ = absl::DeadlineExceededError(
      absl::StrCat("store: ", receipt_.holders.size(), " of ", wanted_acks(),
                   " copies held at the deadline"));
}

void StoreSession::CheckInvariants() const {
  const std::vector<NodeId>& holders = receipt_.holders;
  const std::set<NodeId> distinct(holders.begin(), holders.end());
  KDN_CHECK(distinct.size() == holders.size(), "a node holds one copy");
  KDN_CHECK(
      holders.size() + sending_.size() <= static_cast<size_t>(task_.copies),
      "more copies than wanted");
  KDN_CHECK(!holders.empty() || sending_.size() <= 1,
            "the first copy is made alone");
  for (const NodeId& node : sending_) {
    KDN_CHECK(!distinct.contains(node), "a holder gets no second copy");
  }
  KDN_CHECK(next_ <= task_.owners.size(), "the walk goes past the last owner");
  KDN_CHECK(!answered_ || decided_, "an answer was not decided");
  KDN_CHECK(!decided_ || !answer_.ok() ||
                static_cast<int>(holders.size()) >= wanted_acks(),
            "an OK answer has too few copies");
  KDN_CHECK(decided_ || !sending_.empty() || next_ < task_.owners.size(),
            "an undecided store waits for nothing");
}

}  // namespace kdn::delivery
