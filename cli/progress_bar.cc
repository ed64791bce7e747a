#include "cli/progress_bar.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "kv/clock.h"

namespace kdn::cli {

ProgressBar::ProgressBar()
    : shown_(isatty(STDERR_FILENO) == 1), begin_(SteadyNow()) {}

void ProgressBar::Show(const std::string& what, double share,
                       int tokens) const {
  if (!shown_) return;
  const double seconds = absl::ToDoubleSeconds(SteadyNow() - begin_);
  constexpr int kWidth = 24;
  const int filled = static_cast<int>(kWidth * share);
  std::fprintf(stderr, "\r\033[K%-28.28s [%s%s] %3.0f%% %6.0f tok/s ETA %.0fs",
               what.c_str(), std::string(filled, '#').c_str(),
               std::string(kWidth - filled, '.').c_str(), 100 * share,
               tokens / std::max(seconds, 1e-3),
               seconds * (1 - share) / std::max(share, 1e-3));
}

void ProgressBar::Clear() const {
  if (shown_) std::fprintf(stderr, "\r\033[K");
}

}  // namespace kdn::cli
