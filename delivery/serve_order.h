#ifndef KDN_DELIVERY_SERVE_ORDER_H_
#define KDN_DELIVERY_SERVE_ORDER_H_

#include <cstddef>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"

namespace kdn::delivery {

// In which order a node sends the chunks of one fetch.
//
// What was read is held in memory until it is sent, and memory that a later
// chunk waits for may be held by an earlier chunk, so chunks are sent in
// groups: a group is closed when every chunk was read, or when no chunk has
// come for kPatience. Within a group the chunks are in the order asked for, and
// their layers go out layer by layer, so that the receiver can compute on the
// lower layers of all of them first. Pure; thread-compatible.
class ServeOrder {
 public:
  // A disk read takes less. A wait for memory may take for ever.
  static constexpr absl::Duration kPatience = absl::Milliseconds(20);

  explicit ServeOrder(size_t chunks) : unread_(chunks) {}

  // The read of a chunk has ended, with the chunk or without.
  void OnRead(unsigned chunk, absl::Time now);
  bool all_read() const { return unread_ == 0; }
  // Every chunk was read and taken.
  bool done() const { return unread_ == 0 && ready_.empty(); }
  // A group may be taken.
  bool IsGroupDue(absl::Time now) const;
  // When to ask again, if no chunk is read before. REQUIRES: not IsGroupDue.
  absl::Time NextLook(absl::Time now) const;
  // The chunks to send next, in this order. REQUIRES: IsGroupDue, not done.
  std::vector<unsigned> TakeGroup();
  void CheckInvariants() const;

 private:
  size_t unread_;
  std::vector<unsigned> ready_;  // read, not yet taken
  absl::Time last_read_ = absl::InfinitePast();
};

// Calls `send` for each layer of each chunk of a group, in the order in which
// they go out. The arguments count from the slice's first layer and the group's
// first chunk.
void ForEachLayer(int layers, size_t chunks,
                  absl::FunctionRef<void(int layer, size_t chunk)> send);

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_SERVE_ORDER_H_
