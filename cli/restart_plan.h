#ifndef KDN_CLI_RESTART_PLAN_H_
#define KDN_CLI_RESTART_PLAN_H_

#include <algorithm>
#include <cstddef>
#include <vector>

#include "absl/time/time.h"

namespace kdn::cli {

// When a supervisor starts each of some processes again. The pause before a
// start doubles, from kFirstPause to kLongestPause, whether the process died or
// could not be started at all. It begins anew for a process that has run for
// kHealthy. Pure; times come from the caller.
class RestartPlan {
 public:
  static constexpr absl::Duration kFirstPause = absl::Milliseconds(500);
  static constexpr absl::Duration kLongestPause = absl::Seconds(30);
  static constexpr absl::Duration kHealthy = absl::Minutes(1);

  // All processes run since `now`.
  RestartPlan(size_t processes, absl::Time now)
      : processes_(processes, Process{now}) {}

  // The process has ended. Returns the pause until its next start.
  absl::Duration OnEnd(size_t process, absl::Time now) {
    Process& one = processes_[process];
    if (now - one.started > kHealthy) one.pause = kFirstPause;
    return PlanStart(one, now);
  }
  // Starting the process failed. Returns the pause until the next attempt.
  absl::Duration OnStartFailed(size_t process, absl::Time now) {
    return PlanStart(processes_[process], now);
  }
  void OnStarted(size_t process, absl::Time now) {
    processes_[process].started = now;
    processes_[process].start_at = absl::InfiniteFuture();
  }

  bool IsDue(size_t process, absl::Time now) const {
    return processes_[process].start_at <= now;
  }
  // The time of the next start; infinite when all processes run.
  absl::Time NextStart() const {
    absl::Time next = absl::InfiniteFuture();
    for (const Process& one : processes_) next = std::min(next, one.start_at);
    return next;
  }

 private:
  struct Process {
    absl::Time started;
    absl::Time start_at = absl::InfiniteFuture();
    absl::Duration pause = kFirstPause;
  };

  static absl::Duration PlanStart(Process& one, absl::Time now) {
    const absl::Duration pause = one.pause;
    one.start_at = now + pause;
    one.pause = std::min(2 * one.pause, kLongestPause);
    return pause;
  }

  std::vector<Process> processes_;
};

}  // namespace kdn::cli

#endif  // KDN_CLI_RESTART_PLAN_H_
