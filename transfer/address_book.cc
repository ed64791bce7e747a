#include "transfer/address_book.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace kdn::transfer {

void AddressBook::Set(std::map<NodeId, std::string> addresses) {
  absl::MutexLock lock(&mutex_);
  addresses_ = std::move(addresses);
}

absl::StatusOr<std::string> AddressBook::Find(const NodeId& node) const {
  absl::MutexLock lock(&mutex_);
  const auto found = addresses_.find(node);
  if (found != addresses_.end()) return found->second;
  return absl::NotFoundError(
      absl::StrCat(node.name(), " is not a member of the cluster"));
}

}  // namespace kdn::transfer
