#include "delivery/report_session.h"

#include <optional>
#include <utility>

#include "kv/check.h"
#include "kv/invariants.h"

namespace kdn::delivery {

ReportSession::ReportSession(std::vector<ReportedNode> nodes,
                             absl::Time deadline)
    : nodes_(std::move(nodes)), pending_(deadline) {
  for (const ReportedNode& node : nodes_) {
    NodeStatus silent;
    silent.id = node.id;
    silent.gateway_address = node.gateway_address;
    silent.alive = false;
    statuses_.push_back(std::move(silent));
  }
}

std::vector<ReportAction> ReportSession::TakeActions(absl::Time now) {
  std::vector<ReportAction> actions;
  if (!std::exchange(begun_, true)) {
    for (size_t i = 0; i < nodes_.size(); ++i) {
      if (!nodes_[i].is_live) continue;
      const int number =
          pending_.Begin(Ask{nodes_[i].id, {static_cast<int>(i)}});
      actions.emplace_back(
          AskReport{number, nodes_[i].id, pending_.deadline()});
    }
  }
  if (done()) {
    if (!std::exchange(answered_, true)) {
      actions.emplace_back(AnswerReport{statuses_});
    }
  } else if (const std::optional<WakeAt> wake = pending_.TakeWake(now)) {
    actions.emplace_back(*wake);
  }
  KDN_DCHECK_INVARIANTS(*this);
  return actions;
}

void ReportSession::OnAnswer(int number, MetricValues metrics) {
  const std::optional<Ask> ask = pending_.End(number);
  if (!ask) return;
  NodeStatus& slot = statuses_[ask->items.front()];
  slot.alive = true;
  slot.metrics = std::move(metrics);
}

void ReportSession::OnTime(absl::Time now, IsLive is_live) {
  pending_.EndOverdue(now, is_live);
}

void ReportSession::CheckInvariants() const {
  KDN_CHECK(statuses_.size() == nodes_.size(), "each node has a status");
  for (size_t i = 0; i < nodes_.size(); ++i) {
    KDN_CHECK(nodes_[i].is_live || !statuses_[i].alive,
              "a node that is not asked is not alive");
  }
  KDN_CHECK(!answered_ || done(), "the answer is the last action");
}

}  // namespace kdn::delivery
