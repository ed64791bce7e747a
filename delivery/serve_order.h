#ifndef KDN_DELIVERY_SERVE_ORDER_H_
#define KDN_DELIVERY_SERVE_ORDER_H_

#include <cstddef>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"

namespace kdn::delivery {

// The order in which a node sends the chunks of one fetch.
//
// Chunks are sent in groups. A chunk that was read is held in memory until it
// is sent, and a later chunk may wait for this memory; so a node cannot always
// read all chunks first. A group is closed when every chunk was read, or when
// no chunk was read for kPatience. Within a group the chunks keep the order of
// the fetch. Layer 0 of all chunks goes out first, then layer 1, and so on, so
// that the receiver can compute on the lower layers first. Pure;
// thread-compatible.
class ServeOrder {
 public:
  // Longer than a disk read takes. The wait is bounded, because a chunk that
  // waits for memory may wait for this group to be sent.
  static constexpr absl::Duration kPatience = absl::Milliseconds(20);

  explicit ServeOrder(size_t chunks) : unread_(chunks) {}

  // The read of a chunk has ended: the chunk was read, or the read failed.
  void OnRead(unsigned chunk, absl::Time now);
  bool all_read() const { return unread_ == 0; }
  // True when every chunk was read and taken.
  bool done() const { return unread_ == 0 && ready_.empty(); }
  // True when a group may be taken.
  bool IsGroupDue(absl::Time now) const;
  // When to call IsGroupDue again, if no chunk is read before that. REQUIRES:
  // not IsGroupDue.
  absl::Time NextLook(absl::Time now) const;
  // The chunks to send next, in this order. REQUIRES: IsGroupDue and not done.
  std::vector<unsigned> TakeGroup();
  void CheckInvariants() const;

 private:
  size_t unread_;
  std::vector<unsigned> ready_;  // read, not yet taken
  absl::Time last_read_ = absl::InfinitePast();
};

// Calls `send` for each layer of each chunk of a group, in the order of
// sending. The arguments count from the slice's first layer and the group's
// first chunk.
void ForEachLayer(int layers, size_t chunks,
                  absl::FunctionRef<void(int layer, size_t chunk)> send);

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_SERVE_ORDER_H_
