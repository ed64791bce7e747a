#include "placement/view.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace kdn::placement {
namespace {

const NodeId kA("a");
const NodeId kB("b");
const NodeId kC("c");
const NodeId kD("d");

std::shared_ptr<const ShardMap> MapOf(std::vector<MapMember> members) {
  absl::StatusOr<ShardMap> map = ShardMap::Build(std::move(members), {});
  EXPECT_TRUE(map.ok()) << map.status();
  return std::make_shared<const ShardMap>(*std::move(map));
}

Member In(const NodeId& id, MemberState state) {
  Member member;
  member.spec.id = id;
  member.state = state;
  member.incarnation = Incarnation(1);
  return member;
}

// The view of "a": four members, three of them in the map.
View::Parts FourMembers() {
  View::Parts parts;
  parts.self = kA;
  parts.replicas = 2;
  parts.epoch = Epoch(3);
  parts.members = {In(kA, MemberState::kServing), In(kB, MemberState::kServing),
                   In(kC, MemberState::kServing),
                   In(kD, MemberState::kJoining)};
  parts.map = MapOf({{kA}, {kB}, {kC}});
  parts.map_of_all = MapOf({{kA}, {kB}, {kC}, {kD}});
  return parts;
}

ChunkRef RefOf(int i) {
  DigestBuilder name("view test");
  const ChunkKey key(name.Add(static_cast<uint64_t>(i)).Finish());
  return ChunkRef{key};
}

TEST(ViewTest, FindsBulkServersOfMembersOnly) {
  View::Parts parts = FourMembers();
  parts.members[1].spec.addresses.host = "two";
  parts.members[1].spec.addresses.bulk_port = 2;
  parts.members[1].state = MemberState::kAway;
  EXPECT_EQ(*View(parts).BulkAddressOf(kB), "two:2");
  EXPECT_TRUE(
      absl::IsNotFound(View(parts).BulkAddressOf(NodeId("x")).status()));
}

TEST(ViewTest, OwnersAreThoseOfTheMap) {
  const View view(FourMembers());
  view.CheckInvariants();
  for (int i = 0; i < 100; ++i) {
    const ShardId shard = ShardOf(RefOf(i).key);
    EXPECT_EQ(view.OwnersOf(RefOf(i), 2), view.map().Owners(shard, 2));
    EXPECT_EQ(view.OwnersOf(RefOf(i), 9).size(), 3u);
  }
}

TEST(ViewTest, AnOwnerThatIsAwayIsPassedOverBeforeTheMapIsNew) {
  View::Parts parts = FourMembers();
  parts.members[1].state = MemberState::kAway;
  const View view(parts);
  view.CheckInvariants();
  EXPECT_FALSE(view.IsLive(kB));
  for (int i = 0; i < 100; ++i) {
    std::vector<NodeId> left = view.map().Owners(ShardOf(RefOf(i).key), 3);
    left.erase(std::find(left.begin(), left.end(), kB));
    EXPECT_EQ(view.OwnersOf(RefOf(i), 3), left);
  }
}

TEST(ViewTest, ANodeTakenOffTheListOwnsNothing) {
  View::Parts parts = FourMembers();
  parts.members.erase(parts.members.begin() + 2);
  const View view(parts);
  EXPECT_EQ(view.Find(kC), nullptr);
  EXPECT_FALSE(view.IsLive(kC));
  for (int i = 0; i < 100; ++i) {
    const std::vector<NodeId> owners = view.OwnersOf(RefOf(i), 3);
    EXPECT_EQ(std::count(owners.begin(), owners.end(), kC), 0);
  }
}

TEST(ViewTest, ThisNodeStandsInWhereNoOwnerIsLive) {
  View::Parts parts = FourMembers();
  parts.map = MapOf({{kB}, {kC}});
  parts.members[0].state = MemberState::kJoining;
  parts.members[1].state = MemberState::kAway;
  parts.members[2].state = MemberState::kAway;
  const View view(parts);
  EXPECT_EQ(view.OwnersOf(RefOf(1), 4), (std::vector<NodeId>{kA}));
}

TEST(ViewTest, AMemberThatIsJoiningIsLiveAndOwnsNothing) {
  const View view(FourMembers());
  EXPECT_TRUE(view.IsLive(kD));
  for (int i = 0; i < 100; ++i) {
    const std::vector<NodeId> owners = view.OwnersOf(RefOf(i), 4);
    EXPECT_EQ(std::count(owners.begin(), owners.end(), kD), 0);
  }
}

TEST(ViewTest, AwayOwnersAreThoseOfTheMapOfAll) {
  View::Parts parts = FourMembers();
  EXPECT_FALSE(View(parts).AwayOwnerOf(RefOf(1)));
  parts.members[3].state = MemberState::kAway;
  EXPECT_EQ(View(parts).AwayOwnerOf(RefOf(1)), kD)
      << "the walk reaches all four nodes";
  parts.members.pop_back();
  EXPECT_FALSE(View(parts).AwayOwnerOf(RefOf(1)))
      << "a node off the list does not come back";
}

TEST(ViewTest, ThereAreNoMoreCopiesThanMembers) {
  View::Parts parts = FourMembers();
  EXPECT_EQ(View(parts).copies(), 2);
  EXPECT_EQ(View(parts).walk_depth(), 4);
  parts.replicas = 7;
  EXPECT_EQ(View(parts).copies(), 4);
}

}  // namespace
}  // namespace kdn::placement
