#ifndef KDN_DELIVERY_REPORT_SESSION_H_
#define KDN_DELIVERY_REPORT_SESSION_H_

#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "delivery/node_service.h"
#include "delivery/pending_asks.h"
#include "kv/ids.h"

namespace kdn::delivery {

// A node of the configuration.
struct ReportedNode {
  NodeId id;
  std::string gateway_address;
  bool is_live = false;  // false: the node is not asked
};

// An action: ask a node for its metrics. Call OnAnswer or OnNoAnswer at the
// end.
struct AskReport {
  int number = 0;
  NodeId node;
  absl::Time deadline;
};

// The status call is over: the last action.
struct AnswerReport {
  std::vector<NodeStatus> statuses;  // in the order of the nodes
};

using ReportAction = std::variant<AskReport, WakeAt, AnswerReport>;

// One status call: asks every live node. A node that is dead, dies while it is
// asked, or is silent until the deadline is reported as not alive. Events in
// (OnAnswer, OnNoAnswer, OnTime), actions out (TakeActions). Pure;
// thread-compatible.
class ReportSession {
 public:
  ReportSession(std::vector<ReportedNode> nodes, absl::Time deadline);

  // What to do now. Call once at the beginning and after every event.
  std::vector<ReportAction> TakeActions(absl::Time now);
  // Ignored when the ask has ended.
  void OnAnswer(int number, MetricValues metrics);
  void OnNoAnswer(int number) { pending_.End(number); }
  // The time of a WakeAt has come.
  void OnTime(absl::Time now, IsLive is_live);

  bool done() const { return begun_ && pending_.empty(); }
  void CheckInvariants() const;

 private:
  const std::vector<ReportedNode> nodes_;
  PendingAsks pending_;
  std::vector<NodeStatus> statuses_;
  bool begun_ = false;
  bool answered_ = false;
};

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_REPORT_SESSION_H_
