#include "placement/introduction.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

namespace kdn::placement {
namespace {

using testing::HasSubstr;

Introduction IntroductionOf(const char* node) {
  return {.cluster = "prod",
          .node = NodeId(node),
          .versions = {.oldest = 3, .newest = 4},
          .replicas = 2,
          .shards = 65536,
          .settings = {.weight = 2.0, .zone = "a"},
          .peer_settings = MemberSettings{.weight = 2.0, .zone = "a"}};
}

TEST(IntroductionTest, NodesOfOneClusterAgree) {
  EXPECT_EQ(*AgreeOnVersion(IntroductionOf("n1"), IntroductionOf("n2")), 4u);
}

TEST(IntroductionTest, ANodeSpeaksTheNewestVersionThatBothKnow) {
  Introduction old = IntroductionOf("n2");
  old.versions = {.oldest = 2, .newest = 3};
  EXPECT_EQ(*AgreeOnVersion(IntroductionOf("n1"), old), 3u);
  EXPECT_EQ(*AgreeOnVersion(old, IntroductionOf("n1")), 3u);
}

TEST(IntroductionTest, BothNodesNameTheDifference) {
  struct Case {
    std::function<void(Introduction&)> change;
    std::string named;
  };
  const std::vector<Case> cases = {
      {[](auto& i) { i.cluster = "test"; }, "of cluster 'test'"},
      {[](auto& i) { i.versions = {.oldest = 5, .newest = 6}; }, "5 to 6"},
      {[](auto& i) { i.versions = {.oldest = 1, .newest = 2}; }, "1 to 2"},
      {[](auto& i) { i.replicas = 3; }, "'replicas'"},
      {[](auto& i) { i.shards = 1024; }, "number of shards"},
      {[](auto& i) { i.settings.weight = 3; }, "weight 3 in zone a"},
      {[](auto& i) { i.settings.zone = ""; }, "weight 2 on its own host"},
      {[](auto& i) { i.peer_settings->zone = "b"; }, "weight 2 in zone b"}};
  for (const Case& c : cases) {
    const Introduction ours = IntroductionOf("n1");
    Introduction theirs = IntroductionOf("n2");
    c.change(theirs);
    for (const auto& status : {AgreeOnVersion(ours, theirs).status(),
                               AgreeOnVersion(theirs, ours).status()}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
      const std::string message(status.message());
      EXPECT_THAT(message, HasSubstr("node n1 of cluster"));
      EXPECT_THAT(message, HasSubstr("node n2 of cluster"));
      EXPECT_THAT(message, HasSubstr(c.named));
    }
  }
}

// One node may have a newer list of members than the other node.
TEST(IntroductionTest, ANodeThatIsNotOnTheOthersListIsNotRefused) {
  Introduction theirs = IntroductionOf("n9");
  theirs.peer_settings.reset();
  EXPECT_TRUE(AgreeOnVersion(IntroductionOf("n1"), theirs).ok());
  EXPECT_TRUE(AgreeOnVersion(theirs, IntroductionOf("n1")).ok());
}

}  // namespace
}  // namespace kdn::placement
