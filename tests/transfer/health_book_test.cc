#include "transfer/health_book.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace kdn::transfer {
namespace {

const NodeId kA("a");
const NodeId kB("b");
const absl::Time kNow = absl::UnixEpoch() + absl::Hours(1);

TEST(HealthBookTest, GradesOnlyPeersAboutWhichItKnowsSomething) {
  HealthBook book;
  EXPECT_TRUE(book.GradesAt(kNow).empty());
  book.OnBegin(kA, kNow);
  book.OnAnswer(kA, kNow, kNow);
  book.OnEnd(kA, delivery::FetchEnd::kDone, true, kNow, kNow);
  book.OnBegin(kB, kNow);
  EXPECT_TRUE(book.GradesAt(kNow).empty()) << "one answer is too few";
  book.OnEnd(kB, delivery::FetchEnd::kBroken, false, kNow, kNow);
  const delivery::PeerGrades grades = book.GradesAt(kNow);
  ASSERT_EQ(grades.size(), 1u);
  EXPECT_TRUE(grades.at(kB).is_failing);
}

TEST(HealthBookTest, ManyThreadsReport) {
  HealthBook book;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&book] {
      for (int i = 0; i < 1000; ++i) {
        book.OnBegin(kA, kNow);
        book.OnAnswer(kA, kNow, kNow + absl::Milliseconds(5));
        book.OnEnd(kA, delivery::FetchEnd::kDone, true, kNow,
                   kNow + absl::Milliseconds(5));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const delivery::PeerGrades grades = book.GradesAt(kNow);
  ASSERT_EQ(grades.size(), 1u);
  EXPECT_FALSE(grades.at(kA).is_failing);
  EXPECT_TRUE(grades.at(kA).latency.has_value());
}

}  // namespace
}  // namespace kdn::transfer
