#include "delivery/serve_order.h"

#include <algorithm>
#include <utility>

#include "kv/check.h"
#include "kv/invariants.h"

namespace kdn::delivery {

void ServeOrder::OnRead(unsigned chunk, absl::Time now) {
  KDN_CHECK(unread_ > 0, "more chunks were read than asked for");
  --unread_;
  ready_.push_back(chunk);
  last_read_ = now;
  KDN_DCHECK_INVARIANTS(*this);
}

bool ServeOrder::IsGroupDue(absl::Time now) const {
  return unread_ == 0 || (!ready_.empty() && now >= last_read_ + kPatience);
}

absl::Time ServeOrder::NextLook(absl::Time now) const {
  return ready_.empty() ? now + kPatience : last_read_ + kPatience;
}

std::vector<unsigned> ServeOrder::TakeGroup() {
  KDN_CHECK(!ready_.empty(), "a group has chunks");
  std::vector<unsigned> group = std::exchange(ready_, {});
  std::sort(group.begin(), group.end());
  return group;
}

void ServeOrder::CheckInvariants() const {
  std::vector<unsigned> ready = ready_;
  std::sort(ready.begin(), ready.end());
  KDN_CHECK(std::adjacent_find(ready.begin(), ready.end()) == ready.end(),
            "a chunk is read once");
}

void ForEachLayer(int layers, size_t chunks,
                  absl::FunctionRef<void(int layer, size_t chunk)> send) {
  for (int layer = 0; layer < layers; ++layer) {
    for (size_t chunk = 0; chunk < chunks; ++chunk) send(layer, chunk);
  }
}

}  // namespace kdn::delivery
