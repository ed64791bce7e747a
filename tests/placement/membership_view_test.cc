#include "placement/membership_view.h"

#include <gtest/gtest.h>

namespace kdn::placement {
namespace {

const NodeId kA("a");
const NodeId kB("b");
const NodeId kC("c");

MembershipView View() {
  absl::StatusOr<MembershipView> view =
      MembershipView::Create(kA, {{kA}, {kB}, {kC}}, {});
  EXPECT_TRUE(view.ok());
  return *std::move(view);
}

TEST(MembershipViewTest, BeginsAloneAndGrows) {
  MembershipView view = View();
  EXPECT_EQ(view.map()->members().size(), 1u);
  const Epoch first = view.epoch();
  EXPECT_TRUE(view.Up(kB));
  EXPECT_GT(view.epoch(), first);
  EXPECT_EQ(view.map()->members().size(), 2u);
  EXPECT_FALSE(view.Up(kB)) << "nothing new";
}

TEST(MembershipViewTest, ForgetsTheDeadButNeverItself) {
  MembershipView view = View();
  view.Up(kB);
  EXPECT_TRUE(view.Down(kB));
  EXPECT_FALSE(view.IsLive(kB));
  EXPECT_FALSE(view.Down(kB));
  EXPECT_FALSE(view.Down(kA));
  EXPECT_TRUE(view.IsLive(kA));
}

TEST(MembershipViewTest, AStrangerChangesNothing) {
  MembershipView view = View();
  EXPECT_FALSE(view.Up(NodeId("stranger")));
}

TEST(MembershipViewTest, ANodeThatFlapsGetsTheSameMapBack) {
  MembershipView view = View();
  view.Up(kB);
  const auto with_b = view.map();
  view.Down(kB);
  view.Up(kB);
  EXPECT_EQ(view.map(), with_b);
}

TEST(MembershipViewTest, RefusesAListWithoutItself) {
  EXPECT_FALSE(MembershipView::Create(kA, {{kB}}, {}).ok());
  EXPECT_FALSE(MembershipView::Create(kA, {{kA, -1.0}}, {}).ok());
}

}  // namespace
}  // namespace kdn::placement
