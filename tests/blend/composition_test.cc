#include "blend/composition.h"

#include <gtest/gtest.h>

#include <string>

namespace kdn::blend {
namespace {

Composition Of(std::vector<Part> parts, int prefix) {
  Composition composition;
  composition.parts = std::move(parts);
  composition.prefix = prefix;
  composition.tokens.resize(10);
  return composition;
}

TEST(CompositionTest, InexactTokensAreThoseOfThePartsBehindTheExactOnes) {
  const Composition composition =
      Of({{0, 2, true}, {2, 5, true}, {5, 8, false}, {8, 10, false}}, 2);
  EXPECT_TRUE(composition.Validate().ok());
  EXPECT_EQ(composition.Inexact(), std::vector<int>({5, 6, 7, 8, 9}));
}

TEST(CompositionTest, WithoutAPrefixTheFirstPartMayBeInexact) {
  EXPECT_TRUE(Of({{0, 4, false}, {4, 10, false}}, 0).Validate().ok());
}

TEST(CompositionTest, NamesWhatIsWrong) {
  struct Case {
    Composition composition;
    std::string says;
  };
  const Case cases[] = {
      {Of({}, 0), "the parts end at token 0 of 10"},
      {Of({{0, 9, true}}, 0), "the parts end at token 9 of 10"},
      {Of({{0, 4, true}, {5, 10, false}}, 0), "behind one that ends at 4"},
      {Of({{0, 4, true}, {3, 10, false}}, 0), "behind one that ends at 4"},
      {Of({{0, 4, true}, {4, 4, false}, {4, 10, false}}, 0), "4 to 4"},
      {Of({{0, 4, false}, {4, 10, true}}, 0), "cannot be exact"},
      {Of({{0, 4, true}, {4, 10, false}}, 5), "only 4 tokens are exact"},
      {Of({{0, 10, true}}, -1), "a prefix of -1"},
  };
  for (const Case& each : cases) {
    const absl::Status status = each.composition.Validate();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_NE(status.message().find(each.says), std::string::npos) << status;
  }
}

}  // namespace
}  // namespace kdn::blend
