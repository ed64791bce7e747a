#include "kv/admission.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <tuple>
#include <vector>

namespace kdn {
namespace {

constexpr absl::Time kStart = absl::UnixEpoch();
constexpr WorkClass kRead = WorkClass::kRead;
constexpr WorkClass kWrite = WorkClass::kWrite;
constexpr WorkClass kBackground = WorkClass::kBackground;

Admission::Options Shares(uint64_t budget) {
  return Admission::Options{.budget = budget,
                            .shares = {.read = {budget / 2, 0},
                                       .write = {budget / 4, budget},
                                       .background = {budget / 8, 4 * budget}}};
}

// Drives an Admission and checks its invariants after each event.
class Driver {
 public:
  explicit Driver(const Admission::Options& options) : admission(options) {}

  absl::Status Ask(uint64_t id, uint64_t amount, WorkClass work_class = kRead,
                   uint64_t requester = 0,
                   absl::Time deadline = absl::InfiniteFuture()) {
    const absl::Status status =
        admission.Request({AdmissionId(id), amount, work_class,
                           RequesterId(requester), deadline});
    admission.CheckInvariants();
    return status;
  }
  std::vector<uint64_t> Grants() {
    std::vector<uint64_t> ids;
    while (const auto grant = admission.TakeGrant()) {
      admission.CheckInvariants();
      ids.push_back(grant->id.value());
    }
    return ids;
  }
  std::vector<uint64_t> GiveBack(uint64_t id) {
    admission.GiveBack(AdmissionId(id));
    admission.CheckInvariants();
    return Grants();
  }

  Admission admission;
};

using Ids = std::vector<uint64_t>;

TEST(AdmissionTest, GrantsWhatFitsAndTheRestInOrder) {
  Driver driver({.budget = 100});
  ASSERT_TRUE(driver.Ask(1, 60).ok());
  ASSERT_TRUE(driver.Ask(2, 60).ok());
  ASSERT_TRUE(driver.Ask(3, 10).ok());
  EXPECT_EQ(driver.Grants(), Ids{1}) << "a small request overtook a large one";
  EXPECT_EQ(driver.GiveBack(1), (Ids{2, 3}));
  EXPECT_EQ(driver.admission.used(), 70u);
  EXPECT_EQ(driver.GiveBack(2), Ids{});
  EXPECT_EQ(driver.GiveBack(3), Ids{});
  EXPECT_EQ(driver.admission.used(), 0u);
}

TEST(AdmissionTest, ALargeRequesterDoesNotStarveASmallOne) {
  Driver driver({.budget = 10});
  for (uint64_t id = 0; id < 100; ++id) {
    ASSERT_TRUE(driver.Ask(id, 10, kRead, /*requester=*/1).ok());
  }
  ASSERT_TRUE(driver.Ask(1000, 1, kRead, /*requester=*/2).ok());
  EXPECT_EQ(driver.Grants(), Ids{0});
  EXPECT_EQ(driver.GiveBack(0), Ids{1000});
  EXPECT_EQ(driver.GiveBack(1000), Ids{1});
}

TEST(AdmissionTest, AClassThatWaitsBlocksNoOtherClass) {
  Driver driver(Shares(800));
  ASSERT_TRUE(driver.Ask(1, 300, kWrite).ok());
  ASSERT_TRUE(driver.Ask(2, 300, kWrite).ok());
  ASSERT_TRUE(driver.Ask(3, 200, kBackground).ok());
  EXPECT_EQ(driver.Grants(), Ids{1}) << "1 holds all of the common part";
  for (uint64_t id = 10; id < 14; ++id) {
    ASSERT_TRUE(driver.Ask(id, 100).ok());
    EXPECT_EQ(driver.Grants(), Ids{id}) << "its class is guaranteed 400";
  }
  ASSERT_TRUE(driver.Ask(14, 100).ok());
  EXPECT_EQ(driver.Grants(), Ids{});
  EXPECT_EQ(driver.GiveBack(10), Ids{14});
}

TEST(AdmissionTest, ReadsGoFirstInTheCommonPartUntilAWriteIsDue) {
  Driver driver({.budget = 10, .shares = {.write = {0, 20}}});
  ASSERT_TRUE(driver.Ask(1, 10).ok());
  EXPECT_EQ(driver.Grants(), Ids{1});
  ASSERT_TRUE(driver.Ask(2, 10, kWrite).ok());
  for (uint64_t id = 3; id < 8; ++id) ASSERT_TRUE(driver.Ask(id, 10).ok());
  EXPECT_EQ(driver.GiveBack(1), Ids{3});
  EXPECT_EQ(driver.GiveBack(3), Ids{4});
  // 20 were granted past the write, so it is due. Read 5 became due before the
  // write, because the patience of reads is 0.
  EXPECT_EQ(driver.GiveBack(4), Ids{5});
  EXPECT_EQ(driver.GiveBack(5), Ids{2});
  EXPECT_EQ(driver.GiveBack(2), Ids{6});
}

TEST(AdmissionTest, MoreThanAClassMayHoldIsRefused) {
  Driver driver(Shares(800));
  EXPECT_EQ(driver.admission.most_of(kWrite), 300u);
  EXPECT_TRUE(absl::IsResourceExhausted(driver.Ask(1, 301, kWrite)));
  EXPECT_TRUE(driver.Ask(2, 300, kWrite).ok());
  EXPECT_EQ(driver.Grants(), Ids{2});
}

TEST(AdmissionTest, TakingAtOnceNeverOvertakes) {
  Driver driver({.budget = 10});
  const auto take = [&](uint64_t id, uint64_t amount, WorkClass work_class) {
    const bool taken = driver.admission.TryTake(
        {AdmissionId(id), amount, work_class, RequesterId(), kStart});
    driver.admission.CheckInvariants();
    return taken;
  };
  EXPECT_TRUE(take(1, 6, kRead));
  EXPECT_FALSE(take(2, 5, kRead));
  EXPECT_EQ(driver.admission.used(), 6u) << "a refusal changes nothing";
  ASSERT_TRUE(driver.Ask(3, 5, kWrite).ok());
  EXPECT_EQ(driver.Grants(), Ids{});
  EXPECT_FALSE(take(4, 1, kRead)) << "the write waits for the common part";
  EXPECT_TRUE(driver.admission.Withdraw(AdmissionId(3)));
  EXPECT_TRUE(take(4, 4, kRead));
}

TEST(AdmissionTest, ARequestThatLeavesLetsTheNextOneIn) {
  Driver driver({.budget = 10, .waiting_max = 3});
  ASSERT_TRUE(driver.Ask(1, 8).ok());
  EXPECT_EQ(driver.Grants(), Ids{1});
  ASSERT_TRUE(driver.Ask(2, 5, kRead, 0, kStart + absl::Seconds(1)).ok());
  ASSERT_TRUE(driver.Ask(3, 4).ok());
  ASSERT_TRUE(driver.Ask(4, 2).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(driver.Ask(5, 1)));
  ASSERT_EQ(driver.admission.TakeExpired(kStart + absl::Seconds(1)).size(), 1u);
  EXPECT_EQ(driver.Grants(), Ids{});
  EXPECT_TRUE(driver.admission.Withdraw(AdmissionId(3)));
  EXPECT_EQ(driver.Grants(), Ids{4});
  EXPECT_FALSE(driver.admission.Withdraw(AdmissionId(4))) << "it was granted";
}

TEST(AdmissionTest, AnUnlimitedBudgetOnlyCounts) {
  Driver driver({.budget = UINT64_MAX});
  ASSERT_TRUE(driver.Ask(1, uint64_t{1} << 63).ok());
  ASSERT_TRUE(driver.Ask(2, (uint64_t{1} << 63) - 1).ok());
  ASSERT_TRUE(driver.Ask(3, 1).ok());
  EXPECT_EQ(driver.Grants(), (Ids{1, 2}));
  EXPECT_EQ(driver.GiveBack(1), Ids{3});
}

// Drives an Admission with random events and checks every answer.
class RandomRun {
 public:
  struct Event {
    char what;
    uint64_t id;
    bool operator==(const Event&) const = default;
  };

  explicit RandomRun(uint32_t seed)
      : random_(seed), driver_(Shares(1 + random_() % 200)) {}

  std::vector<Event> Run(int steps) {
    for (int i = 0; i < steps; ++i) Step();
    while (!waiting_.empty() && !testing::Test::HasFailure()) {
      EXPECT_FALSE(held_.empty()) << "requests wait, but nothing is held";
      if (held_.empty()) break;
      GiveBackOne();
    }
    while (!held_.empty()) GiveBackOne();
    EXPECT_EQ(driver_.admission.used(), 0u);
    return events_;
  }

 private:
  struct Waiting {
    AdmissionRequest request;
    // For each other requester: its grants since the last grant of this
    // requester.
    std::map<uint64_t, int> passed_by;
  };

  void Step() {
    now_ += absl::Milliseconds(static_cast<int>(random_() % 10));
    switch (random_() % 8) {
      case 0:
      case 1:
      case 2:
        return AskOne();
      case 3:
      case 4:
      case 5:
        if (!held_.empty()) GiveBackOne();
        return;
      case 6:
        return WithdrawOne();
      default:
        return Expire();
    }
  }

  void AskOne() {
    const WorkClass work_class = kWorkClasses[random_() % 3];
    const uint64_t most = driver_.admission.most_of(work_class);
    AdmissionRequest request{AdmissionId(next_id_++),
                             random_() % (most + 1) >> (random_() % 4),
                             work_class, RequesterId(random_() % 5)};
    if (random_() % 3 == 0) {
      request.deadline =
          now_ + absl::Milliseconds(static_cast<int>(random_() % 200));
    }
    ASSERT_TRUE(driver_.admission.Request(request).ok());
    waiting_.push_back({request, {}});
    TakeGrants();
  }

  void GiveBackOne() {
    const auto it =
        std::next(held_.begin(), static_cast<long>(random_() % held_.size()));
    driver_.admission.GiveBack(AdmissionId(it->first));
    held_.erase(it);
    TakeGrants();
  }

  void WithdrawOne() {
    if (waiting_.empty()) return;
    const size_t i = random_() % waiting_.size();
    ASSERT_TRUE(driver_.admission.Withdraw(waiting_[i].request.id));
    waiting_.erase(waiting_.begin() + static_cast<long>(i));
    TakeGrants();
  }

  void Expire() {
    std::vector<AdmissionRequest> due;
    for (const Waiting& waiting : waiting_) {
      if (waiting.request.deadline <= now_) due.push_back(waiting.request);
    }
    std::stable_sort(due.begin(), due.end(), [](const auto& a, const auto& b) {
      return a.deadline < b.deadline;
    });
    const auto expired = driver_.admission.TakeExpired(now_);
    ASSERT_EQ(expired.size(), due.size());
    for (size_t i = 0; i < due.size(); ++i) {
      EXPECT_EQ(expired[i].id, due[i].id) << "deadlines out of order";
      events_.push_back({'x', due[i].id.value()});
    }
    std::erase_if(waiting_, [this](const Waiting& waiting) {
      return waiting.request.deadline <= now_;
    });
    TakeGrants();
  }

  void TakeGrants() {
    while (const auto grant = driver_.admission.TakeGrant()) {
      driver_.admission.CheckInvariants();
      events_.push_back({'g', grant->id.value()});
      OnGrant(*grant);
      held_[grant->id.value()] = grant->amount;
    }
    driver_.admission.CheckInvariants();
  }

  void OnGrant(const AdmissionRequest& grant) {
    const auto same_line = [&](const Waiting& waiting) {
      return waiting.request.work_class == grant.work_class &&
             waiting.request.requester == grant.requester;
    };
    const auto it = std::find_if(waiting_.begin(), waiting_.end(), same_line);
    ASSERT_NE(it, waiting_.end());
    EXPECT_EQ(it->request.id, grant.id) << "a requester is served in order";
    waiting_.erase(it);
    std::set<std::pair<WorkClass, uint64_t>> first_of_requester;
    for (Waiting& waiting : waiting_) {
      const WorkClass work_class = waiting.request.work_class;
      const uint64_t requester = waiting.request.requester.value();
      if (!first_of_requester.insert({work_class, requester}).second) continue;
      if (work_class != grant.work_class) continue;
      if (requester == grant.requester.value()) {
        waiting.passed_by.clear();
        continue;
      }
      EXPECT_LE(++waiting.passed_by[grant.requester.value()], 1)
          << "requester " << requester << " was passed over twice";
    }
  }

  std::mt19937 random_;
  Driver driver_;
  absl::Time now_ = kStart;
  uint64_t next_id_ = 1;
  std::vector<Waiting> waiting_;  // in the order of arrival
  std::map<uint64_t, uint64_t> held_;
  std::vector<Event> events_;
};

TEST(AdmissionPropertyTest, KeepsItsPromisesOverRandomEvents) {
  for (uint32_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(seed);
    const auto events = RandomRun(seed).Run(1500);
    EXPECT_EQ(events, RandomRun(seed).Run(1500)) << "not deterministic";
    if (HasFailure()) return;
  }
}

// A large request of one class waits while the other two classes keep asking
// for small amounts. The amount that is granted past the request is bounded.
TEST(AdmissionPropertyTest, ALargeRequestIsNotStarvedByOtherClasses) {
  for (const WorkClass large : kWorkClasses) {
    for (uint32_t seed = 1; seed <= 30; ++seed) {
      SCOPED_TRACE(testing::Message()
                   << static_cast<int>(large) << ' ' << seed);
      std::mt19937 random(seed);
      const Admission::Options options = Shares(160);
      Admission admission(options);
      const uint64_t common = 160 - 80 - 40 - 20;
      const auto request = [&](uint64_t id, uint64_t amount, WorkClass of) {
        ASSERT_TRUE(admission
                        .Request({AdmissionId(id), amount, of, RequesterId(id),
                                  absl::InfiniteFuture()})
                        .ok());
      };
      std::vector<std::tuple<uint64_t, WorkClass, uint64_t>> held;
      uint64_t next_id = 1;
      uint64_t passed = 0;
      bool granted = false;
      for (int step = 0; step < 20000 && !granted; ++step) {
        if (step == 50) {
          request(0, admission.most_of(large), large);
          passed = 0;
        }
        for (const WorkClass of : kWorkClasses) {
          if (of != large && admission.waiting(of) < 3) {
            request(next_id++, 1 + random() % 20, of);
          }
        }
        while (const auto grant = admission.TakeGrant()) {
          granted |= grant->id == AdmissionId(0);
          held.emplace_back(grant->id.value(), grant->work_class,
                            grant->amount);
          const uint64_t used = admission.used(grant->work_class);
          const uint64_t own = admission.guaranteed(grant->work_class);
          if (used > own) passed += std::min(grant->amount, used - own);
        }
        if (granted || held.empty()) continue;
        const size_t i = random() % held.size();
        admission.GiveBack(AdmissionId(std::get<0>(held[i])));
        held.erase(held.begin() + static_cast<long>(i));
      }
      EXPECT_TRUE(granted);
      EXPECT_LE(passed, options.shares[large].patience + 3 * common);
    }
  }
}

}  // namespace
}  // namespace kdn
