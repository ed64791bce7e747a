#ifndef KDN_TRANSFER_ADDRESS_BOOK_H_
#define KDN_TRANSFER_ADDRESS_BOOK_H_

#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "kv/ids.h"

namespace kdn::transfer {

// Where the bulk servers of a cluster's nodes listen: the node writes the
// addresses whenever its member list changes, the transport reads one whenever
// it connects. Thread-safe.
class AddressBook {
 public:
  // Replaces all addresses, each "host:port".
  void Set(std::map<NodeId, std::string> addresses);
  // NOT_FOUND when the node is not a member.
  absl::StatusOr<std::string> Find(const NodeId& node) const;

 private:
  mutable absl::Mutex mutex_;
  std::map<NodeId, std::string> addresses_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kdn::transfer

#endif  // KDN_TRANSFER_ADDRESS_BOOK_H_
