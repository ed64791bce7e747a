#ifndef KDN_CLI_PROGRESS_BAR_H_
#define KDN_CLI_PROGRESS_BAR_H_

#include <string>

#include "absl/time/time.h"

namespace kdn::cli {

// A progress line on stderr that is drawn over itself. It shows nothing when
// stderr is not a terminal.
class ProgressBar {
 public:
  ProgressBar();

  // `share` of the work is done, 0 to 1; `tokens` is the number of tokens so
  // far, from which the line shows the speed.
  void Show(const std::string& what, double share, int tokens) const;
  void Clear() const;

 private:
  const bool shown_;
  const absl::Time begin_;
};

}  // namespace kdn::cli

#endif  // KDN_CLI_PROGRESS_BAR_H_
