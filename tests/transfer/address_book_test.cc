#include "transfer/address_book.h"

#include <gtest/gtest.h>

namespace kdn::transfer {
namespace {

TEST(AddressBookTest, FindsWhatWasSetLast) {
  const NodeId a("a");
  const NodeId b("b");
  AddressBook book;
  EXPECT_TRUE(absl::IsNotFound(book.Find(a).status()));
  book.Set({{a, "one:1"}});
  EXPECT_EQ(*book.Find(a), "one:1");
  book.Set({{a, "two:1"}, {b, "two:2"}});
  EXPECT_EQ(*book.Find(a), "two:1");
  EXPECT_EQ(*book.Find(b), "two:2");
  book.Set({{b, "two:2"}});
  EXPECT_TRUE(absl::IsNotFound(book.Find(a).status()));
}

}  // namespace
}  // namespace kdn::transfer
