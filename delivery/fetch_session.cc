#include "delivery/fetch_session.h"

#include <algorithm>
#include <iterator>
#include <numeric>
#include <utility>

#include "delivery/deadlines.h"
#include "delivery/peer_transport.h"
#include "kv/check.h"
#include "kv/invariants.h"

namespace kdn::delivery {

FetchSession::FetchSession(FetchTask task)
    : task_(std::move(task)),
      window_bytes_(std::clamp<uint64_t>(
          std::min(kWindowBytesMax, task_.memory_bytes_max), task_.chunk_bytes,
          task_.chunk_bytes * std::max<uint64_t>(task_.read_orders.size(), 1))),
      outcomes_(task_.read_orders.size()),
      pinned_(task_.read_orders.size()),
      taken_(task_.read_orders.size(), 0),
      fetch_of_(task_.read_orders.size(), -1),
      walk_(std::move(task_.read_orders)) {
  KDN_CHECK(task_.chunk_bytes > 0, "a chunk takes room");
  due_actions_.emplace_back(AwaitDeadline{task_.deadline});
}

std::vector<FetchAction> FetchSession::TakeActions(absl::Time now,
                                                   RateOf rate_of) {
  std::vector<FetchAction> actions = std::exchange(due_actions_, {});
  for (const Ask& ask : TakeAsks()) {
    if (ask.node == task_.self) {
      AddReads(ask, now, actions);
    } else {
      AddFetches(ask, now, rate_of, actions);
    }
  }
  AddStops(actions);
  AddWindow(actions);
  if (done() && !std::exchange(answered_, true)) {
    actions.emplace_back(AnswerRetrieve{Outcomes()});
  }
  KDN_DCHECK_INVARIANTS(*this);
  return actions;
}

void FetchSession::AddReads(const Ask& ask, absl::Time now,
                            std::vector<FetchAction>& actions) const {
  for (const int chunk : ask.items) {
    actions.emplace_back(
        ReadHere{Wanted(chunk), AttemptDeadline(now, task_.deadline)});
  }
}

void FetchSession::AddFetches(const Ask& ask, absl::Time now, RateOf rate_of,
                              std::vector<FetchAction>& actions) {
  const DeliveryTarget target{
      .bytes_per_second = rate_of(ask.node),
      .prefill_tokens_per_second = task_.prefill_tokens_per_second,
      .now = now,
      .deadline = AttemptDeadline(now, task_.deadline),
      .too_slow = task_.too_slow,
      .reuse = task_.reuse};
  const SendBudget budget = BudgetFor(target);
  // The chunks that are held back, and the chunks of other sessions, need their
  // part of the bytes.
  const size_t all =
      ask.items.size() + held_back() + static_cast<size_t>(task_.chunks_beside);
  absl::Span<const int> left = ask.items;
  while (!left.empty()) {
    const absl::Span<const int> some = left.subspan(0, kItemsPerFetchMax);
    left.remove_prefix(some.size());
    FetchFrom fetch{
        next_fetch_++, ask.node, {}, target, ShareOf(budget, some.size(), all)};
    for (const int chunk : some) {
      fetch.wanted.push_back(Wanted(chunk));
      fetching_[fetch.fetch].insert(chunk);
      fetch_of_[chunk] = fetch.fetch;
    }
    actions.emplace_back(std::move(fetch));
  }
}

void FetchSession::AddStops(std::vector<FetchAction>& actions) {
  std::erase_if(fetching_, [&](const auto& fetch) {
    const auto& [number, chunks] = fetch;
    if (std::any_of(chunks.begin(), chunks.end(),
                    [this](int chunk) { return walk_.asked(chunk); })) {
      return false;
    }
    if (!chunks.empty()) actions.emplace_back(StopFetch{number});
    return true;
  });
}

void FetchSession::AddWindow(std::vector<FetchAction>& actions) {
  const bool wanted = !window_open_ && !held_back_.empty();
  if (wanted == window_asked_) return;
  window_asked_ = wanted;
  if (wanted) {
    actions.emplace_back(AskWindow{window_bytes_, task_.deadline});
  } else {
    actions.emplace_back(WithdrawWindow{});
  }
}

std::vector<Ask> FetchSession::TakeAsks() {
  std::vector<Ask> now = TakeSomeAsks();
  // When the window is refused, every chunk that is held back moves on to its
  // next node at once.
  while (!window_refused_.ok() && !held_back_.empty()) {
    for (const Ask& ask : std::exchange(held_back_, {})) {
      for (int item : ask.items) {
        --outstanding_;
        walk_.MoveOn(item, window_refused_);
      }
    }
    for (Ask& ask : TakeSomeAsks()) now.push_back(std::move(ask));
  }
  return now;
}

std::vector<Ask> FetchSession::TakeSomeAsks() {
  std::vector<Ask> due = std::exchange(held_back_, {});
  for (Ask& ask : walk_.TakeAsks()) {
    outstanding_ += static_cast<int>(ask.items.size());
    due.push_back(std::move(ask));
  }
  std::vector<Ask> now;
  for (Ask& ask : due) {
    if (ask.node == task_.self) {  // needs no window: it is decoded in place
      due_here_.insert(due_here_.end(), ask.items.begin(), ask.items.end());
      continue;
    }
    Ask some = TakeRoom(std::move(ask));
    if (!some.items.empty()) now.push_back(std::move(some));
  }
  Ask here = TakeReadsHere();
  if (!here.items.empty()) now.push_back(std::move(here));
  return now;
}

Ask FetchSession::TakeRoom(Ask ask) {
  const uint64_t room =
      window_open_ ? (window_bytes_ - window_used_) / task_.chunk_bytes : 0;
  const size_t take = std::min<uint64_t>(room, ask.items.size());
  window_used_ += take * task_.chunk_bytes;
  for (size_t i = 0; i < take; ++i) taken_[ask.items[i]] = task_.chunk_bytes;
  const auto cut = ask.items.begin() + static_cast<ptrdiff_t>(take);
  if (cut != ask.items.end()) {
    held_back_.push_back(Ask{ask.node, {cut, ask.items.end()}});
  }
  ask.items.erase(cut, ask.items.end());
  return ask;
}

Ask FetchSession::TakeReadsHere() {
  Ask here{task_.self, {}};
  while (reading_here_ < kReadsHereMax && !due_here_.empty()) {
    ++reading_here_;
    here.items.push_back(due_here_.front());
    due_here_.pop_front();
  }
  return here;
}

void FetchSession::OnAttempt(int chunk, const NodeId& node,
                             const AttemptResult& result) {
  KDN_CHECK(outstanding_ > 0, "an attempt ended that was never begun");
  --outstanding_;
  if (node == task_.self) {
    KDN_CHECK(reading_here_ > 0, "reads of this node are miscounted");
    --reading_here_;
  } else {
    KDN_CHECK(window_used_ >= taken_[chunk], "the window is miscounted");
    window_used_ -= std::exchange(taken_[chunk], 0);
    const auto fetch = fetching_.find(std::exchange(fetch_of_[chunk], -1));
    if (fetch != fetching_.end()) fetch->second.erase(chunk);
  }
  if (absl::IsDataLoss(result.status)) OnDamage(chunk, node, result.version);
  ChunkOutcome& outcome = outcomes_[chunk];
  outcome.wire_bytes += result.wire_bytes;
  if (!walk_.asked(chunk)) return;  // abandoned during the try
  if (result.announced && !pinned_[chunk]) pinned_[chunk] = result.version;
  if (!result.status.ok()) {
    walk_.MoveOn(chunk, result.status);
    return;
  }
  walk_.Found(chunk);
  if (result.recompute) {
    outcome.kind = OutcomeKind::kRecompute;
    return;
  }
  outcome.source = node;
  outcome.kind = OutcomeKind::kHit;
  outcome.level = result.level;
  outcome.tier = result.tier;
  outcome.version = result.version;
}

void FetchSession::OnDamage(int chunk, const NodeId& node,
                            ObjectVersion version) {
  if (node == task_.self) {
    due_actions_.emplace_back(DiscardHere{chunk, version});
  } else if (version != ObjectVersion()) {  // zero: no part of a copy came
    // The copy was damaged at the peer or on its way. The peer finds out which.
    due_actions_.emplace_back(TellSuspect{node, chunk, version});
  }
}

size_t FetchSession::held_back() const {
  size_t chunks = 0;
  for (const Ask& ask : held_back_) chunks += ask.items.size();
  return chunks;
}

void FetchSession::OnSize(int chunk, uint64_t bytes) {
  if (bytes >= taken_[chunk]) return;
  window_used_ -= taken_[chunk] - bytes;
  taken_[chunk] = bytes;
}

void FetchSession::OpenWindow() {
  KDN_CHECK(window_refused_.ok(), "a refused window is not opened");
  window_open_ = true;
  window_asked_ = false;
}

void FetchSession::RefuseWindow(const absl::Status& why) {
  KDN_CHECK(!window_open_ && !why.ok(), "an open window is not refused");
  window_refused_ = why;
  window_asked_ = false;
}

void FetchSession::OnCancelled() {
  Abandon(absl::CancelledError("the engine gave up the retrieve"));
}

void FetchSession::OnDeadline() {
  Abandon(absl::DeadlineExceededError("the retrieve's deadline passed"));
}

void FetchSession::Abandon(const absl::Status& why) {
  outstanding_ -= static_cast<int>(held_back() + due_here_.size());
  held_back_.clear();
  due_here_.clear();
  walk_.Abandon(why);
}

std::vector<ChunkOutcome> FetchSession::Outcomes() const {
  KDN_CHECK(done(), "outcomes are final once every chunk is settled");
  std::vector<ChunkOutcome> outcomes = outcomes_;
  for (size_t i = 0; i < outcomes.size(); ++i) {
    const absl::Status& why = walk_.why(static_cast<int>(i));
    if (why.ok() || absl::IsNotFound(why)) continue;
    outcomes[i].kind = OutcomeKind::kFailed;
    outcomes[i].why = why;
  }
  return outcomes;
}

void FetchSession::CheckInvariants() const {
  walk_.CheckInvariants();
  const uint64_t taken =
      std::accumulate(taken_.begin(), taken_.end(), uint64_t{0});
  KDN_CHECK(taken == window_used_, "the window is miscounted");
  KDN_CHECK(window_used_ <= window_bytes_, "the window is overdrawn");
  KDN_CHECK(window_used_ == 0 || window_open_,
            "a peer was asked before the window was granted");
  KDN_CHECK(reading_here_ <= kReadsHereMax, "too many reads of this node");
  const auto fetching = std::count_if(taken_.begin(), taken_.end(),
                                      [](uint64_t bytes) { return bytes > 0; });
  const size_t waiting = held_back() + due_here_.size();
  KDN_CHECK(static_cast<size_t>(outstanding_) >=
                waiting + static_cast<size_t>(reading_here_ + fetching),
            "every chunk that waits or is tried is counted");
  for (const Ask& ask : held_back_) {
    for (const int chunk : ask.items) {
      KDN_CHECK(walk_.asked(chunk) && taken_[chunk] == 0,
                "a chunk that is held back takes no room");
    }
  }
  for (const auto& [number, chunks] : fetching_) {
    KDN_CHECK(number < next_fetch_, "fetches are numbered");
    for (const int chunk : chunks) {
      KDN_CHECK(fetch_of_[chunk] == number, "a chunk is in one fetch");
    }
  }
  KDN_CHECK(!answered_ || done(), "the answer is the last action");
}

}  // namespace kdn::delivery
