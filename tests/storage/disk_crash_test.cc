// kill -9 at any moment, cleaning included: what was acknowledged is there and
// whole, what was removed is gone, and nothing half-written is seen, whether
// the index survived or is rebuilt.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <map>
#include <random>

#include "storage/disk_tier.h"
#include "tests/storage/disk_fixture.h"

namespace kdn::storage {
namespace {

constexpr size_t kObjectBytes = 20000;
constexpr int kRounds = 20;

DiskTier::Options Options(const std::string& directory) {
  DiskTier::Options options;
  options.directory = directory;
  options.clock = TestClock();
  options.capacity_bytes = 1u << 30;
  options.segment_bytes = 256u << 10;
  return options;
}

// One acknowledged step of the child.
struct Ack {
  enum class Step { kWritten, kRemoving, kRemoved };
  int object;
  Step step;
  uint64_t cleaned;  // segments, by this child so far
};

class Child {
 public:
  Child(const std::string& directory, int pipe)
      : pipe_(pipe), tier_(DiskTier::Open(Options(directory))) {}

  // Writes, and removes three of four, so that cleaning runs all the time;
  // reports each step. Never returns.
  [[noreturn]] void Run(int first) {
    if (!tier_.ok()) _exit(1);
    SyncDisk disk(tier_->get());
    for (int i = first;; ++i) {
      if (!disk.Write(MakeObject(i, 1, kObjectBytes), i % 3 == 0).ok()) {
        _exit(2);
      }
      Report(i, Ack::Step::kWritten);
      const int old = i - 4;
      if (old < first || old % 4 == 0) continue;
      // A removal under way may or may not have happened.
      Report(old, Ack::Step::kRemoving);
      if (!disk.Remove(MakeObject(old).info).ok()) _exit(4);
      Report(old, Ack::Step::kRemoved);
    }
  }

 private:
  void Report(int object, Ack::Step step) {
    const Ack ack{object, step, (*tier_)->counters()["disk_cleaned_segments"]};
    if (write(pipe_, &ack, sizeof(ack)) != sizeof(ack)) _exit(3);
  }
  const int pipe_;
  absl::StatusOr<std::unique_ptr<DiskTier>> tier_;
};

class DiskCrashTest : public testing::Test {
 protected:
  // Lets a child work for so many steps, kills it, and notes what it said.
  void WorkAndKill(int steps) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      close(ends[0]);
      Child(directory_.path(), ends[1]).Run(next_);
    }
    close(ends[1]);
    Ack ack{};
    uint64_t cleaned = 0;
    // What it still said before it died counts as well.
    for (int got = 1; read(ends[0], &ack, sizeof(ack)) == sizeof(ack); ++got) {
      steps_[ack.object] = ack.step;
      next_ = std::max(next_, ack.object + 2);
      cleaned = ack.cleaned;
      if (got == steps) kill(child, SIGKILL);
    }
    cleaned_ += cleaned;
    close(ends[0]);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "exit " << WEXITSTATUS(status);
  }

  // In a child as well: RocksDB's threads do not outlive a fork, so this
  // process, which forks again, must have none.
  void VerifyInAChild() {
    const pid_t child = fork();
    if (child == 0) {
      VerifyEverything();
      _exit(HasFailure() ? 1 : 0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0) << "the child has said what is wrong";
  }

  void VerifyEverything() {
    auto tier = DiskTier::Open(Options(directory_.path()));
    ASSERT_TRUE(tier.ok()) << tier.status();
    SyncDisk disk(tier->get());
    for (const auto& [object, step] : steps_) {
      const TestObject expected = MakeObject(object, 1, kObjectBytes);
      const auto back = disk.Read(expected.info);
      const bool there = back.ok();
      EXPECT_TRUE(there || absl::IsNotFound(back.status())) << back.status();
      if (there) {
        EXPECT_EQ(*back, expected.bytes) << object;
      }
      EXPECT_TRUE(there || step != Ack::Step::kWritten) << object << " is lost";
      EXPECT_TRUE(!there || step != Ack::Step::kRemoved)
          << object << " is back";
    }
    EXPECT_EQ((*tier)->counters()["disk_damaged"], 0u);
  }

  TempDirectory directory_;
  std::map<int, Ack::Step> steps_;  // the last of each object
  int next_ = 0;
  uint64_t cleaned_ = 0;
};

TEST_F(DiskCrashTest, NothingAcknowledgedIsLostAndNothingHalfWrittenIsSeen) {
  constexpr uint32_t kSeed = 20;
  std::mt19937 random(kSeed);
  for (int round = 0; round < kRounds; ++round) {
    SCOPED_TRACE(testing::Message() << "seed " << kSeed << " round " << round);
    WorkAndKill(static_cast<int>(random() % 200) + 1);
    if (HasFatalFailure()) return;
    if (round % 4 == 3) {
      std::filesystem::remove_all(directory_.path() + "/index");
    }
    VerifyInAChild();
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(cleaned_, 20u) << "hardly a kill can have met a cleaning";
  std::cout << kRounds << " kills, " << steps_.size() << " objects, "
            << cleaned_ << " segments cleaned meanwhile\n";
}

}  // namespace
}  // namespace kdn::storage
