#include "placement/map_planner.h"

#include <gtest/gtest.h>

#include <random>

#include "absl/strings/str_cat.h"

namespace kdn::placement {
namespace {

constexpr absl::Duration kCoalesce = absl::Milliseconds(50);

MapMembers Set(std::vector<std::string> names) {
  MapMembers set;
  for (std::string& name : names) set.push_back({NodeId(std::move(name)), 1.0});
  return set;
}

std::shared_ptr<const ShardMap> MapOf(const MapMembers& set) {
  absl::StatusOr<ShardMap> map = ShardMap::Build(set, {.order_length = 1});
  EXPECT_TRUE(map.ok()) << map.status();
  return std::make_shared<const ShardMap>(*std::move(map));
}

class MapPlannerTest : public testing::Test {
 protected:
  // Builds every map that is due at `now`. Returns how many it built.
  int BuildAll(absl::Time now) {
    int builds = 0;
    while (const std::optional<MapMembers> set = planner_.TakeBuild(now)) {
      planner_.OnBuilt(MapOf(*set));
      planner_.CheckInvariants();
      ++builds;
    }
    return builds;
  }

  MapPlanner planner_{kCoalesce};
  const absl::Time start_ = absl::UnixEpoch();
};

TEST_F(MapPlannerTest, ChangesThatComeTogetherCostOneBuild) {
  planner_.Want({Set({"a", "b"})}, start_);
  EXPECT_EQ(planner_.wake(), start_ + kCoalesce);
  planner_.Want({Set({"a", "b", "c"})}, start_ + absl::Milliseconds(30));
  EXPECT_FALSE(planner_.TakeBuild(start_ + absl::Milliseconds(49)));
  const auto build = planner_.TakeBuild(start_ + kCoalesce);
  ASSERT_TRUE(build);
  EXPECT_EQ(*build, Set({"a", "b", "c"}));
  EXPECT_FALSE(planner_.TakeBuild(start_ + absl::Seconds(9)))
      << "one build at a time";
  planner_.OnBuilt(MapOf(*build));
  planner_.CheckInvariants();
  EXPECT_NE(planner_.Find(Set({"a", "b", "c"})), nullptr);
  EXPECT_EQ(planner_.wake(), absl::InfiniteFuture());
}

TEST_F(MapPlannerTest, ChangesThatNeverEndDoNotPutABuildOff) {
  planner_.Want({Set({"a"})}, start_);
  for (int ms = 0; ms < 50; ms += 10) {
    planner_.Want({Set({"a", absl::StrCat("b", ms)})},
                  start_ + absl::Milliseconds(ms));
  }
  EXPECT_EQ(planner_.wake(), start_ + kCoalesce);
}

TEST_F(MapPlannerTest, AChangeDuringABuildWaitsForMore) {
  planner_.Want({Set({"a"})}, start_);
  const auto build = planner_.TakeBuild(start_ + kCoalesce);
  ASSERT_TRUE(build);
  const absl::Time later = start_ + absl::Milliseconds(60);
  planner_.Want({Set({"b"})}, later);
  EXPECT_EQ(planner_.wake(), absl::InfiniteFuture()) << "a build is under way";
  planner_.OnBuilt(MapOf(*build));
  EXPECT_EQ(planner_.wake(), later + kCoalesce);
}

TEST_F(MapPlannerTest, TheUrgentMapIsBuiltFirstAndTheOtherFollows) {
  planner_.Want({Set({"a", "b"}), Set({"a", "b", "c"})}, start_);
  const absl::Time due = start_ + kCoalesce;
  EXPECT_EQ(planner_.TakeBuild(due), Set({"a", "b"}));
  planner_.OnBuilt(MapOf(Set({"a", "b"})));
  EXPECT_EQ(planner_.TakeBuild(due), Set({"a", "b", "c"}));
}

TEST_F(MapPlannerTest, ASetThatComesBackHasItsMapAtOnce) {
  planner_.Want({Set({"a", "b"})}, start_);
  EXPECT_EQ(BuildAll(start_ + kCoalesce), 1);
  const auto map = planner_.Find(Set({"a", "b"}));
  planner_.Want({Set({"a"})}, start_ + kCoalesce);
  planner_.Want({Set({"a", "b"})}, start_ + kCoalesce);
  EXPECT_EQ(planner_.Find(Set({"a", "b"})), map);
  EXPECT_EQ(BuildAll(start_ + absl::Seconds(9)), 0);
}

TEST_F(MapPlannerTest, SetsOfOtherWeightsAreOtherSets) {
  planner_.Keep(MapOf({{NodeId("a"), 1.0}}));
  EXPECT_EQ(planner_.Find({{NodeId("a"), 2.0}}), nullptr);
}

TEST_F(MapPlannerTest, TheLastEightMapsAreKept) {
  absl::Time now = start_;
  const MapMembers all = Set({"all"});
  for (int i = 0; i < 12; ++i) {
    planner_.Want({Set({absl::StrCat("n", i)}), all}, now);
    now += kCoalesce;
    BuildAll(now);
  }
  EXPECT_NE(planner_.Find(all), nullptr) << "it was wanted all the time";
  EXPECT_EQ(planner_.Find(Set({"n4"})), nullptr);
  for (int i = 5; i < 12; ++i) {
    EXPECT_NE(planner_.Find(Set({absl::StrCat("n", i)})), nullptr) << i;
  }
}

// After any events, a wanted map is built within one wait.
TEST_F(MapPlannerTest, EveryWantedMapIsBuiltInTheEnd) {
  std::mt19937 random(11);
  absl::Time now = start_;
  std::optional<MapMembers> building;
  const auto some = [&] { return Set({absl::StrCat("n", random() % 14)}); };
  for (int step = 0; step < 3000; ++step) {
    now += absl::Milliseconds(random() % 40);
    switch (random() % 3) {
      case 0:
        planner_.Want({some(), some()}, now);
        break;
      case 1:
        if (!building) building = planner_.TakeBuild(now);
        break;
      case 2:
        if (building) planner_.OnBuilt(MapOf(*building));
        building.reset();
        break;
    }
    planner_.CheckInvariants();
    EXPECT_LE(std::min(planner_.wake(), now + kCoalesce), now + kCoalesce);
  }
  if (building) planner_.OnBuilt(MapOf(*building));
  const MapMembers last = Set({"last"});
  planner_.Want({last}, now);
  BuildAll(now + kCoalesce);
  EXPECT_NE(planner_.Find(last), nullptr);
}

}  // namespace
}  // namespace kdn::placement
