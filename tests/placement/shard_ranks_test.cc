#include "placement/shard_ranks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "absl/strings/str_cat.h"
#include "placement/rendezvous.h"

namespace kdn::placement {
namespace {

std::vector<MapMember> Nodes(const std::vector<double>& weights) {
  std::vector<MapMember> members;
  for (size_t i = 0; i < weights.size(); ++i) {
    members.push_back({NodeId(absl::StrCat("n", i)), weights[i]});
  }
  return members;
}

std::vector<uint16_t> Copy(absl::Span<const uint16_t> order) {
  return std::vector<uint16_t>(order.begin(), order.end());
}

TEST(ShardRanksTest, AllIsTheOrderOfTheRanks) {
  const std::vector<MapMember> members = Nodes({1, 4, 2, 1, 1, 8});
  ShardRanks ranks(members, 2);
  for (uint32_t shard = 0; shard < kShards; shard += 97) {
    double last = 0.0;
    for (uint16_t i : ranks.All(ShardId(shard))) {
      const double rank =
          RankOf(HashOf(members[i].id.name()), shard, members[i].weight);
      EXPECT_GE(rank, last);
      last = rank;
    }
  }
}

TEST(ShardRanksTest, FirstIsTheBeginningOfAll) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 60; ++round) {
    std::vector<double> weights(1 + random() % 200, 1.0);
    for (double& weight : weights) {
      const double mixed[] = {2.5, 1.0 + static_cast<double>(random() % 4),
                              std::pow(10.0, random() % 30),
                              std::pow(10.0, 300.0 - random() % 600)};
      weight = mixed[round % 4];
    }
    const size_t first = 1 + random() % std::min<size_t>(weights.size(), 20);
    ShardRanks ranks(Nodes(weights), first);
    for (uint32_t shard = 0; shard < 500; ++shard) {
      const std::vector<uint16_t> some = Copy(ranks.First(ShardId(shard)));
      ASSERT_EQ(some, Copy(ranks.All(ShardId(shard)).subspan(0, first)))
          << weights.size() << " members, shard " << shard;
    }
  }
}

TEST(ShardRanksTest, MembersOfOneHashComeInTheirOrder) {
  // A map never has two members of one id, but the hashes of two ids may be
  // equal.
  const std::vector<MapMember> twins(40, MapMember{NodeId("n"), 1.0});
  ShardRanks ranks(twins, 3);
  EXPECT_EQ(Copy(ranks.First(ShardId(9))), (std::vector<uint16_t>{0, 1, 2}));
}

}  // namespace
}  // namespace kdn::placement
