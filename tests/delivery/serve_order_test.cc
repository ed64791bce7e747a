#include "delivery/serve_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <utility>

namespace kdn::delivery {
namespace {

const absl::Time kNow = absl::UnixEpoch() + absl::Hours(1);

TEST(ServeOrderTest, ChunksThatAreAllReadKeepTheOrderOfTheFetch) {
  ServeOrder order(3);
  for (const unsigned chunk : {2u, 0u}) order.OnRead(chunk, kNow);
  EXPECT_FALSE(order.IsGroupDue(kNow));
  order.OnRead(1, kNow);
  ASSERT_TRUE(order.IsGroupDue(kNow));
  EXPECT_EQ(order.TakeGroup(), (std::vector<unsigned>{0, 1, 2}));
  EXPECT_TRUE(order.done());
}

TEST(ServeOrderTest, AGroupDoesNotWaitForAChunkThatWaitsForMemory) {
  ServeOrder order(3);
  order.OnRead(1, kNow);
  order.OnRead(0, kNow + absl::Milliseconds(15));
  EXPECT_FALSE(order.IsGroupDue(kNow + absl::Milliseconds(25)))
      << "the last chunk was read 10 ms ago";
  const absl::Time due = order.NextLook(kNow + absl::Milliseconds(25));
  EXPECT_EQ(due, kNow + absl::Milliseconds(15) + ServeOrder::kPatience);
  ASSERT_TRUE(order.IsGroupDue(due));
  EXPECT_EQ(order.TakeGroup(), (std::vector<unsigned>{0, 1}));
  EXPECT_FALSE(order.done());
  EXPECT_FALSE(order.IsGroupDue(due + absl::Hours(1))) << "no chunk is ready";
  EXPECT_EQ(order.NextLook(due), due + ServeOrder::kPatience);
  order.OnRead(2, due + absl::Hours(1));
  EXPECT_EQ(order.TakeGroup(), std::vector<unsigned>{2});
  EXPECT_TRUE(order.done());
}

TEST(ServeOrderTest, AFetchWithoutChunksIsDone) {
  EXPECT_TRUE(ServeOrder(0).done());
}

TEST(ServeOrderTest, LowerLayersOfAllChunksGoFirst) {
  std::vector<std::pair<int, size_t>> sent;
  ForEachLayer(
      2, 3, [&](int layer, size_t chunk) { sent.emplace_back(layer, chunk); });
  EXPECT_TRUE(std::is_sorted(sent.begin(), sent.end()));
  EXPECT_EQ(sent.size(), 6u);
}

TEST(ServeOrderTest, EveryChunkIsSentOnceWheneverItIsRead) {
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    std::vector<unsigned> chunks(random() % 30 + 1);
    for (size_t i = 0; i < chunks.size(); ++i) {
      chunks[i] = static_cast<unsigned>(i);
    }
    std::shuffle(chunks.begin(), chunks.end(), random);
    ServeOrder order(chunks.size());
    std::set<unsigned> sent;
    absl::Time now = kNow;
    for (size_t next = 0; !order.done();) {
      order.CheckInvariants();
      if (order.IsGroupDue(now)) {
        for (const unsigned chunk : order.TakeGroup()) {
          EXPECT_TRUE(sent.insert(chunk).second);
        }
      } else if (next < chunks.size() && random() % 3 != 0) {
        order.OnRead(chunks[next++], now);
      } else {
        EXPECT_GT(order.NextLook(now), now);
        now += absl::Milliseconds(static_cast<int>(random() % 30));
      }
    }
    EXPECT_EQ(sent.size(), chunks.size());
  }
}

}  // namespace
}  // namespace kdn::delivery
