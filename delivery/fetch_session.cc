#include "delivery/fetch_session.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "kv/check.h"

namespace kdn::delivery {

FetchSession::FetchSession(NodeId self,
                           std::vector<std::vector<NodeId>> read_orders,
                           uint64_t chunk_bytes, uint64_t window_max)
    : self_(std::move(self)),
      chunk_bytes_(chunk_bytes),
      window_bytes_(std::clamp<uint64_t>(
          window_max, chunk_bytes,
          chunk_bytes * std::max<uint64_t>(read_orders.size(), 1))),
      outcomes_(read_orders.size()),
      pinned_(read_orders.size()),
      taken_(read_orders.size(), 0),
      walk_(std::move(read_orders)) {
  KDN_CHECK(chunk_bytes > 0, "a chunk takes room");
}

std::vector<Ask> FetchSession::TakeAsks() {
  // Who is passed over is due at the next node at once.
  std::vector<Ask> now = TakeSomeAsks();
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
  std::vector<Ask> fresh = walk_.TakeAsks();
  for (const Ask& ask : fresh) {
    outstanding_ += static_cast<int>(ask.items.size());
  }
  due.insert(due.end(), std::make_move_iterator(fresh.begin()),
             std::make_move_iterator(fresh.end()));
  std::vector<Ask> now;
  for (Ask& ask : due) {
    if (ask.node == self_) {  // no copy is made of what is here already
      due_here_.insert(due_here_.end(), ask.items.begin(), ask.items.end());
      continue;
    }
    const uint64_t room =
        window_open_ ? (window_bytes_ - window_used_) / chunk_bytes_ : 0;
    const size_t take = std::min<uint64_t>(room, ask.items.size());
    window_used_ += take * chunk_bytes_;
    for (size_t i = 0; i < take; ++i) taken_[ask.items[i]] = chunk_bytes_;
    const auto cut = ask.items.begin() + static_cast<ptrdiff_t>(take);
    if (cut != ask.items.end()) {
      held_back_.push_back(Ask{ask.node, {cut, ask.items.end()}});
    }
    if (take > 0) now.push_back(Ask{ask.node, {ask.items.begin(), cut}});
  }
  Ask here{self_, {}};
  while (reading_here_ < kReadsHereMax && !due_here_.empty()) {
    ++reading_here_;
    here.items.push_back(due_here_.front());
    due_here_.pop_front();
  }
  if (!here.items.empty()) now.push_back(std::move(here));
  return now;
}

void FetchSession::OnAttempt(int chunk, const NodeId& node,
                             const AttemptResult& result) {
  KDN_CHECK(outstanding_ > 0, "an attempt ended that was never begun");
  --outstanding_;
  if (node == self_) {
    KDN_CHECK(reading_here_ > 0, "reads of this node are miscounted");
    --reading_here_;
  } else {
    KDN_CHECK(window_used_ >= taken_[chunk], "the window is miscounted");
    window_used_ -= std::exchange(taken_[chunk], 0);
  }
  ChunkOutcome& outcome = outcomes_[chunk];
  outcome.wire_bytes += result.wire_bytes;
  if (!walk_.asked(chunk)) return;  // abandoned meanwhile
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

int FetchSession::held_back() const {
  size_t chunks = 0;
  for (const Ask& ask : held_back_) chunks += ask.items.size();
  return static_cast<int>(chunks);
}

void FetchSession::OnSize(int chunk, uint64_t bytes) {
  if (bytes >= taken_[chunk]) return;
  window_used_ -= taken_[chunk] - bytes;
  taken_[chunk] = bytes;
}

uint64_t FetchSession::WindowWanted() const {
  return window_open_ || held_back_.empty() ? 0 : window_bytes_;
}

void FetchSession::RefuseWindow(const absl::Status& why) {
  KDN_CHECK(!window_open_ && !why.ok(), "an open window is not refused");
  window_refused_ = why;
}

void FetchSession::Abandon(const absl::Status& why) {
  for (const Ask& ask : held_back_) {
    outstanding_ -= static_cast<int>(ask.items.size());
  }
  held_back_.clear();
  outstanding_ -= static_cast<int>(due_here_.size());
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

}  // namespace kdn::delivery
