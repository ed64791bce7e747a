#ifndef KDN_KV_LOG_LIMIT_H_
#define KDN_KV_LOG_LIMIT_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "absl/time/time.h"

namespace kdn {

// Decides which lines of a log are written: at most one line per site and
// interval. Time is an argument. Never forgets a site. There are few sites:
// each is a place in the code, for some places with the name of a peer.
class LogLimit {
 public:
  explicit LogLimit(absl::Duration interval) : interval_(interval) {}

  // Decides whether the caller writes a line of `site`. Nullopt: the line is
  // left out. Otherwise the result is the number of lines of this site that
  // were left out since the last line that was written.
  std::optional<uint64_t> Admit(std::string_view site, absl::Time now);

 private:
  struct Site {
    absl::Time last;
    uint64_t left_out = 0;
  };
  const absl::Duration interval_;
  std::map<std::string, Site, std::less<>> sites_;
};

}  // namespace kdn

#endif  // KDN_KV_LOG_LIMIT_H_
