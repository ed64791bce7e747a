#ifndef KDN_TRANSFER_ADDRESS_BOOK_H_
#define KDN_TRANSFER_ADDRESS_BOOK_H_

#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "kv/ids.h"
#include "placement/view.h"

namespace kdn::transfer {

// What the bulk plane needs of the node's view: where the members listen and
// what the node says to each. The node writes it whenever its view changes, the
// transport reads it whenever it connects. Thread-safe.
class AddressBook {
 public:
  void Set(placement::View view);
  // "host:port" of the member's bulk server. NOT_FOUND when the node is not a
  // member, or no view was written yet.
  absl::StatusOr<std::string> Find(const NodeId& node) const;
  // Unset before the first view.
  std::optional<placement::View> view() const;

 private:
  mutable absl::Mutex mutex_;
  std::optional<placement::View> view_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kdn::transfer

#endif  // KDN_TRANSFER_ADDRESS_BOOK_H_
