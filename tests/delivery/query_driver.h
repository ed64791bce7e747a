#ifndef KDN_TESTS_DELIVERY_QUERY_DRIVER_H_
#define KDN_TESTS_DELIVERY_QUERY_DRIVER_H_

#include <gtest/gtest.h>

#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "delivery/pending_asks.h"
#include "kv/ids.h"

namespace kdn::delivery {

inline const NodeId kA("a");
inline const NodeId kB("b");
inline const NodeId kC("c");
inline const absl::Time kNow = absl::UnixEpoch() + absl::Hours(1);
inline const absl::Time kDeadline = kNow + absl::Seconds(1);

inline bool AllLive(const NodeId&) { return true; }

// A LookupSession, LeaseSession or ReportSession, what it has asked for and
// what it has answered.
template <typename Session, typename AskT, typename AnswerT>
class QueryDriver {
 public:
  template <typename... Args>
  explicit QueryDriver(Args&&... args) : session(std::forward<Args>(args)...) {}

  // Takes the session's actions. Returns the new asks.
  std::vector<AskT> Take(absl::Time now = kNow) {
    std::vector<AskT> fresh;
    for (const auto& action : session.TakeActions(now)) {
      if (const auto* ask = std::get_if<AskT>(&action)) {
        fresh.push_back(*ask);
      } else if (const auto* wake = std::get_if<WakeAt>(&action)) {
        wake_at = wake->at;
      } else if (const auto* last = std::get_if<AnswerT>(&action)) {
        EXPECT_FALSE(answer.has_value()) << "answered once";
        answer = *last;
      }
    }
    session.CheckInvariants();
    asks.insert(asks.end(), fresh.begin(), fresh.end());
    return fresh;
  }

  Session session;
  std::vector<AskT> asks;  // all so far
  absl::Time wake_at = absl::InfinitePast();
  std::optional<AnswerT> answer;
};

}  // namespace kdn::delivery

#endif  // KDN_TESTS_DELIVERY_QUERY_DRIVER_H_
