#include "kv/waiting_line.h"

#include <gtest/gtest.h>

#include <optional>
#include <vector>

namespace kdn {
namespace {

constexpr absl::Time kStart = absl::UnixEpoch();
constexpr WorkClass kRead = WorkClass::kRead;
constexpr WorkClass kWrite = WorkClass::kWrite;

AdmissionRequest Ask(uint64_t id, uint64_t requester,
                     absl::Time deadline = absl::InfiniteFuture(),
                     WorkClass work_class = kRead) {
  return AdmissionRequest{AdmissionId(id), 1, work_class,
                          RequesterId(requester), deadline};
}

std::vector<uint64_t> IdsOf(const std::vector<AdmissionRequest>& requests) {
  std::vector<uint64_t> ids;
  for (const AdmissionRequest& request : requests) {
    ids.push_back(request.id.value());
  }
  return ids;
}

std::vector<uint64_t> ServeAll(WaitingLine& line, WorkClass work_class) {
  std::vector<AdmissionRequest> served;
  while (line.First(work_class) != nullptr) {
    served.push_back(line.TakeFirst(work_class));
    line.CheckInvariants();
  }
  return IdsOf(served);
}

TEST(WaitingLineTest, RequestersTakeTurnsAndEachIsServedInOrder) {
  WaitingLine line(10);
  for (uint64_t id : {1, 2, 3, 4}) ASSERT_TRUE(line.Add(Ask(id, 70)).ok());
  ASSERT_TRUE(line.Add(Ask(5, 71)).ok());
  ASSERT_TRUE(line.Add(Ask(6, 71)).ok());
  ASSERT_TRUE(line.Add(Ask(7, 72)).ok());
  line.CheckInvariants();
  EXPECT_EQ(ServeAll(line, kRead),
            (std::vector<uint64_t>{1, 5, 7, 2, 6, 3, 4}));
  EXPECT_TRUE(line.empty());
}

TEST(WaitingLineTest, ClassesHaveLinesOfTheirOwn) {
  WaitingLine line(2);
  ASSERT_TRUE(line.Add(Ask(1, 7, absl::InfiniteFuture(), kWrite)).ok());
  ASSERT_TRUE(line.Add(Ask(2, 7, absl::InfiniteFuture(), kWrite)).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(
      line.Add(Ask(3, 8, absl::InfiniteFuture(), kWrite))));
  EXPECT_TRUE(line.Add(Ask(4, 7)).ok()) << "the line of reads has room";
  EXPECT_EQ(line.size(kWrite), 2u);
  EXPECT_EQ(ServeAll(line, kRead), std::vector<uint64_t>{4});
  EXPECT_EQ(ServeAll(line, kWrite), (std::vector<uint64_t>{1, 2}));
}

TEST(WaitingLineTest, TheFirstStaysFirstUntilItLeaves) {
  WaitingLine line(10);
  ASSERT_TRUE(line.Add(Ask(1, 7)).ok());
  ASSERT_TRUE(line.Add(Ask(2, 8)).ok());
  ASSERT_TRUE(line.Add(Ask(3, 7)).ok());
  EXPECT_EQ(line.First(kRead)->id, AdmissionId(1));
  EXPECT_TRUE(line.Remove(AdmissionId(1)));
  EXPECT_EQ(line.First(kRead)->id, AdmissionId(3)) << "7 had no turn yet";
  EXPECT_FALSE(line.Remove(AdmissionId(1)));
  line.CheckInvariants();
  EXPECT_EQ(ServeAll(line, kRead), (std::vector<uint64_t>{3, 2}));
}

TEST(WaitingLineTest, TheEarliestDeadlineExpiresFirst) {
  WaitingLine line(10);
  const auto at = [](int s) { return kStart + absl::Seconds(s); };
  ASSERT_TRUE(line.Add(Ask(1, 7, at(5))).ok());
  ASSERT_TRUE(line.Add(Ask(2, 8, at(3))).ok());
  ASSERT_TRUE(line.Add(Ask(3, 7, at(3))).ok());
  ASSERT_TRUE(line.Add(Ask(4, 9, at(9), kWrite)).ok());
  ASSERT_TRUE(line.Add(Ask(5, 9)).ok());
  EXPECT_TRUE(line.TakeExpired(at(2)).empty());
  EXPECT_EQ(IdsOf(line.TakeExpired(at(5))), (std::vector<uint64_t>{2, 3, 1}));
  line.CheckInvariants();
  EXPECT_EQ(IdsOf(line.TakeExpired(at(99))), std::vector<uint64_t>{4});
  EXPECT_EQ(line.size(), 1u) << "a request without a deadline never expires";
}

}  // namespace
}  // namespace kdn
