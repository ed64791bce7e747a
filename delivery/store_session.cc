#include "delivery/store_session.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/check.h"

namespace kdn::delivery {

StoreSession::StoreSession(ObjectVersion version, std::vector<NodeId> owners,
                           int replicas, Durability durability)
    : version_(version),
      owners_(std::move(owners)),
      replicas_(replicas),
      durability_(durability) {
  KDN_CHECK(!owners_.empty(), "a shard has at least one owner");
  KDN_CHECK(replicas_ >= 1, "an object has at least one copy");
}

std::vector<NodeId> StoreSession::TakeSends() {
  std::vector<NodeId> sends;
  // Alone until someone holds it: that one decides which store won.
  const size_t wanted =
      receipt_.holders.empty() ? 1 : static_cast<size_t>(replicas_);
  while (receipt_.holders.size() + sending_.size() < wanted &&
         next_ < owners_.size()) {
    sending_.insert(owners_[next_]);
    sends.push_back(owners_[next_++]);
  }
  return sends;
}

void StoreSession::OnSent(const NodeId& node,
                          const absl::StatusOr<PushReceipt>& result) {
  KDN_CHECK(sending_.erase(node) == 1, "an answer nobody waits for");
  if (!result.ok()) {
    last_error_ = result.status();
  } else if (receipt_.holders.empty()) {
    receipt_.version = result->version;
    receipt_.existed = result->existed;
    receipt_.holders.push_back(node);
  } else if (result->version == receipt_.version) {
    receipt_.holders.push_back(node);
  } else {
    // An older version survived there; the first owner's is the one that reads
    // walk to first. Counting it as a copy would be a lie.
    last_error_ = absl::FailedPreconditionError(
        absl::StrCat(node.name(), " holds another version of this chunk"));
  }
  Decide();
}

int StoreSession::wanted_acks() const {
  return durability_ == Durability::kCache ? 1 : replicas_;
}

void StoreSession::Decide() {
  if (decided_) return;
  if (static_cast<int>(receipt_.holders.size()) >= wanted_acks()) {
    decided_ = true;
    answer_ = receipt_;
    // Copies beyond the promise are the winner's business.
    if (lost()) next_ = owners_.size();
    return;
  }
  if (!sending_.empty() || next_ < owners_.size()) return;
  decided_ = true;
  if (last_error_.ok()) {
    last_error_ = absl::UnavailableError(
        absl::StrCat("live owners: ", owners_.size(), "; start the others"));
  }
  answer_ = absl::Status(
      absl::IsResourceExhausted(last_error_) ||
              absl::IsInvalidArgument(last_error_) ||
              absl::IsFailedPrecondition(last_error_)
          ? last_error_.code()
          : absl::StatusCode::kUnavailable,
      absl::StrCat(receipt_.holders.size(), " of ", wanted_acks(),
                   " copies are held; last error: ", last_error_.message()));
}

void StoreSession::OnDeadline() {
  if (decided_) return;
  decided_ = true;
  next_ = owners_.size();
  answer_ = absl::DeadlineExceededError(
      absl::StrCat("store: ", receipt_.holders.size(), " of ", wanted_acks(),
                   " copies held at the deadline"));
}

bool StoreSession::TakeAnswer(absl::StatusOr<StoreReceipt>* answer) {
  if (!decided_ || answered_) return false;
  answered_ = true;
  *answer = answer_;
  return true;
}

}  // namespace kdn::delivery
