#include "delivery/peer_health.h"

#include <algorithm>

#include "kv/check.h"
#include "kv/invariants.h"

namespace kdn::delivery {

void PeerHealth::OnAsk(absl::Time now) {
  // This fetch tries the peer again. If it is not answered, a later fetch tries
  // again after another backoff.
  if (failures_ > 0 && now >= retry_at_) retry_at_ = now + Backoff();
  const bool was_given_up = now - silent_since_ >= kSilence + kBackoffMax;
  if (waiting_ > 0 && was_given_up) silent_since_ = now - kSilence;
  KDN_DCHECK_INVARIANTS(*this);
}

void PeerHealth::OnBegin(absl::Time now) {
  if (waiting_ == 0) silent_since_ = now;
  ++waiting_;
  KDN_DCHECK_INVARIANTS(*this);
}

void PeerHealth::OnAnswer(absl::Time began, absl::Time now) {
  KDN_CHECK(waiting_ > 0, "an answer to a fetch that has not begun");
  --waiting_;
  failures_ = 0;
  silent_since_ = now;
  if (now - last_answer_ > kLatencyFresh) answers_ = 0;
  last_answer_ = now;
  const double took =
      absl::ToDoubleSeconds(std::max(now - began, absl::ZeroDuration()));
  latency_s_ =
      answers_ == 0 ? took : latency_s_ + kWeight * (took - latency_s_);
  answers_ = std::min(answers_ + 1, kAnswersMin);
  KDN_DCHECK_INVARIANTS(*this);
}

void PeerHealth::OnProgress(absl::Time now) {
  silent_since_ = std::max(silent_since_, now);
}

void PeerHealth::OnEnd(FetchEnd end, bool answered, absl::Time began,
                       absl::Time now) {
  if (!answered) {
    KDN_CHECK(waiting_ > 0, "a fetch ended that has not begun");
    --waiting_;
  }
  const bool had_time = now - began >= kPatience;
  if (end == FetchEnd::kBroken ||
      (end == FetchEnd::kLate && !answered && had_time)) {
    Fail(began, now);
  }
  KDN_DCHECK_INVARIANTS(*this);
}

void PeerHealth::Fail(absl::Time began, absl::Time now) {
  if (now - last_failure_ > kForgotten) failures_ = 0;
  // Fetches that were under way at the same time and fail are one failure.
  if (failures_ == 0 || began >= last_failure_) ++failures_;
  last_failure_ = now;
  retry_at_ = now + Backoff();
}

absl::Duration PeerHealth::Backoff() const {
  absl::Duration backoff = kBackoff;
  for (int i = 1; i < failures_ && backoff < kBackoffMax; ++i) backoff *= 2;
  return std::min(backoff, kBackoffMax);
}

bool PeerHealth::IsFailing(absl::Time now) const {
  if (failures_ > 0 && now < retry_at_) return true;
  const absl::Duration silence = now - silent_since_;
  return waiting_ > 0 && silence >= kSilence &&
         silence < kSilence + kBackoffMax;
}

std::optional<absl::Duration> PeerHealth::LatencyAt(absl::Time now) const {
  if (answers_ < kAnswersMin || now - last_answer_ > kLatencyFresh) {
    return std::nullopt;
  }
  return absl::Seconds(latency_s_);
}

PeerGrade PeerHealth::GradeAt(absl::Time now) const {
  return {IsFailing(now), LatencyAt(now)};
}

void PeerHealth::CheckInvariants() const {
  KDN_CHECK(waiting_ >= 0, "fetches that wait are miscounted");
  KDN_CHECK(failures_ >= 0, "failures are miscounted");
  KDN_CHECK(answers_ >= 0 && answers_ <= kAnswersMin, "answers are miscounted");
  KDN_CHECK(latency_s_ >= 0, "a latency is not negative");
}

}  // namespace kdn::delivery
