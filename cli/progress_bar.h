#ifndef KDN_CLI_PROGRESS_BAR_H_
#define KDN_CLI_PROGRESS_BAR_H_

#include <string>

#include "absl/time/time.h"

namespace kdn::cli {

// How far a model is with its tokens: a line on a terminal's stderr that is
// drawn over itself; nothing elsewhere.
class ProgressBar {
 public:
  ProgressBar();

  // `share` of everything is done, 0 to 1, `tokens` so far.
  void Show(const std::string& what, double share, int tokens) const;
  void Clear() const;

 private:
  const bool shown_;
  const absl::Time begin_;
};

}  // namespace kdn::cli

#endif  // KDN_CLI_PROGRESS_BAR_H_
