#include "transfer/address_book.h"

#include <gtest/gtest.h>

#include "placement/membership.h"

namespace kdn::transfer {
namespace {

placement::View ViewOf(std::vector<placement::MemberSpec> members) {
  const NodeId self = members[0].id;
  return placement::Membership::Create({.self = self}, std::move(members),
                                       absl::UnixEpoch())
      ->view();
}

placement::MemberSpec MemberAt(const NodeId& id, const char* host,
                               uint16_t port) {
  placement::MemberSpec member;
  member.id = id;
  member.addresses.host = host;
  member.addresses.bulk_port = port;
  return member;
}

TEST(AddressBookTest, FindsWhatWasSetLast) {
  const NodeId a("a");
  const NodeId b("b");
  AddressBook book;
  EXPECT_TRUE(absl::IsNotFound(book.Find(a).status()));
  EXPECT_FALSE(book.view().has_value());
  book.Set(ViewOf({MemberAt(b, "two", 2)}));
  EXPECT_TRUE(absl::IsNotFound(book.Find(a).status()));
  book.Set(ViewOf({MemberAt(b, "two", 3), MemberAt(a, "one", 1)}));
  EXPECT_EQ(*book.Find(a), "one:1");
  EXPECT_EQ(*book.Find(b), "two:3");
  EXPECT_EQ(book.view()->self(), b);
}

}  // namespace
}  // namespace kdn::transfer
