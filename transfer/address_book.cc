#include "transfer/address_book.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace kdn::transfer {

void AddressBook::Set(placement::View view) {
  absl::MutexLock lock(&mutex_);
  view_.emplace(std::move(view));
}

absl::StatusOr<std::string> AddressBook::Find(const NodeId& node) const {
  absl::MutexLock lock(&mutex_);
  const placement::Member* member = view_ ? view_->Find(node) : nullptr;
  if (member == nullptr) {
    return absl::NotFoundError(
        absl::StrCat(node.name(), " is not a member of the cluster"));
  }
  const placement::Addresses& addresses = member->spec.addresses;
  return absl::StrCat(addresses.host, ":", addresses.bulk_port);
}

std::optional<placement::View> AddressBook::view() const {
  absl::MutexLock lock(&mutex_);
  return view_;
}

}  // namespace kdn::transfer
