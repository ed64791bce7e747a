#include "kv/log_limit.h"

#include <utility>

namespace kdn {

std::optional<uint64_t> LogLimit::Admit(std::string_view site, absl::Time now) {
  const auto found = sites_.find(site);
  if (found == sites_.end()) {
    sites_.emplace(std::string(site), Site{now, 0});
    return 0;
  }
  Site& known = found->second;
  if (now < known.last + interval_) {
    ++known.left_out;
    return std::nullopt;
  }
  known.last = now;
  return std::exchange(known.left_out, 0);
}

}  // namespace kdn
