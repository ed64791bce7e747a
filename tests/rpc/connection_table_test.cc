#include "rpc/connection_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

namespace kdn::rpc {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Optional;
using Class = ConnectionTable::Class;
using Use = ConnectionTable::Use;

constexpr ConnectionTable::Options kOptions{.connections_max = 10,
                                            .silent_max = 4,
                                            .silent_per_peer_max = 5,
                                            .per_peer_max = 5,
                                            .kept_for_local = 2,
                                            .kept_for_remote = 2};

TEST(ConnectionTableTest, ThePeerWithTheMostSilentConnectionsMakesRoom) {
  ConnectionTable table(kOptions);
  EXPECT_THAT(table.Add(1, Class::kRemote, "honest"), Optional(IsEmpty()));
  for (uint64_t id = 2; id <= 4; ++id) {
    EXPECT_THAT(table.Add(id, Class::kRemote, "flood"), Optional(IsEmpty()));
  }
  EXPECT_THAT(table.Add(5, Class::kRemote, "flood"), Optional(ElementsAre(2)));
  EXPECT_THAT(table.Add(6, Class::kLocal, "local"), Optional(ElementsAre(3)));
  EXPECT_THAT(table.Add(7, Class::kRemote, "third"), Optional(ElementsAre(4)));
}

TEST(ConnectionTableTest, AConnectionInUseIsNeverGivenUp) {
  ConnectionTable table(kOptions);
  for (uint64_t id = 1; id <= 5; ++id) {
    ASSERT_TRUE(table.Add(id, Class::kRemote, "busy"));
    table.SetUse(id, Use::kInUse);
  }
  EXPECT_EQ(table.Add(6, Class::kRemote, "busy"), std::nullopt)
      << "one peer has its share";
  EXPECT_THAT(table.Add(7, Class::kRemote, "other"), Optional(IsEmpty()));
  EXPECT_EQ(table.GiveUpIdle(), std::nullopt);
  table.SetUse(3, Use::kIdle);
  EXPECT_THAT(table.Add(8, Class::kRemote, "busy"), Optional(ElementsAre(3)));
  EXPECT_EQ(table.size(), 6u);
}

TEST(ConnectionTableTest, AnIdleConnectionOfOneClassMakesRoom) {
  ConnectionTable table(kOptions);
  ASSERT_TRUE(table.Add(1, Class::kLocal, "local"));
  ASSERT_TRUE(table.Add(2, Class::kRemote, "a"));
  table.SetUse(1, Use::kIdle);
  EXPECT_EQ(table.GiveUpIdle(Class::kRemote), std::nullopt);
  table.SetUse(2, Use::kIdle);
  EXPECT_THAT(table.GiveUpIdle(Class::kRemote), Optional(2));
  EXPECT_THAT(table.GiveUpIdle(), Optional(1));
}

TEST(ConnectionTableTest, EachClassKeepsItsPlaces) {
  for (const Class greedy : {Class::kRemote, Class::kLocal}) {
    const Class other =
        greedy == Class::kRemote ? Class::kLocal : Class::kRemote;
    ConnectionTable table(kOptions);
    uint64_t id = 0;
    for (int i = 0; i < 20; ++i) {
      if (table.Add(++id, greedy, std::string(1, static_cast<char>('a' + i)))) {
        table.SetUse(id, Use::kInUse);
      }
    }
    EXPECT_EQ(table.size(), 8u);
    for (int i = 0; i < 2; ++i) {
      EXPECT_THAT(table.Add(++id, other, "z"), Optional(IsEmpty()));
      table.SetUse(id, Use::kInUse);
    }
    EXPECT_EQ(table.Add(++id, other, "z"), std::nullopt);
  }
}

TEST(ConnectionTableTest, AGreetingUnderANameThatHasItsShareIsRefused) {
  ConnectionTable table(kOptions);
  for (uint64_t id = 1; id <= 5; ++id) {
    ASSERT_TRUE(table.Add(id, Class::kRemote, "address"));
    EXPECT_THAT(table.SetPeer(id, "n2"), Optional(IsEmpty()));
  }
  ASSERT_TRUE(table.Add(6, Class::kRemote, "address"));
  EXPECT_EQ(table.SetPeer(6, "n2"), std::nullopt);
  EXPECT_EQ(table.size(), 6u) << "nothing changes";
  table.Remove(6);
  table.SetUse(1, Use::kIdle);
  ASSERT_TRUE(table.Add(7, Class::kRemote, "address"));
  EXPECT_THAT(table.SetPeer(7, "n2"), Optional(ElementsAre(1)));
}

TEST(ConnectionTableTest, NoLimitIsEverPassed) {
  std::mt19937 random(20261129);
  ConnectionTable table(kOptions);
  std::set<uint64_t> open;
  for (uint64_t id = 1; id < 5000; ++id) {
    const auto peer = std::string(1, static_cast<char>('a' + random() % 4));
    const Class of = random() % 3 == 0 ? Class::kLocal : Class::kRemote;
    if (const auto victims = table.Add(id, of, peer)) {
      for (const uint64_t victim : *victims) {
        EXPECT_EQ(open.erase(victim), 1u) << "given up twice";
      }
      open.insert(id);
    }
    ASSERT_LE(table.size(), kOptions.connections_max);
    ASSERT_EQ(table.size(), open.size());
    const uint64_t any = *std::next(open.begin(), random() % open.size());
    switch (random() % 5) {
      case 0:
        table.SetUse(any, Use::kInUse);
        break;
      case 1:
        table.SetUse(any, Use::kIdle);
        break;
      case 2:
        table.Remove(any);
        open.erase(any);
        break;
      case 3:
        if (const auto victims = table.SetPeer(any, peer)) {
          for (const uint64_t victim : *victims) {
            EXPECT_EQ(open.erase(victim), 1u) << "given up twice";
          }
        }
        break;
    }
  }
}

}  // namespace
}  // namespace kdn::rpc
