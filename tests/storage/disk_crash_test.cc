// Tests of the disk tier in more than one process. After kill -9 at any moment,
// also during a cleaning: acknowledged objects are there and whole, removed
// objects are gone, and half-written objects are not seen. All this holds with
// the old index and with a rebuilt index. TTLs that were changed later are
// there with the old index.
//
// RocksDB's threads do not survive a fork, and this process forks often. So it
// opens no tier: all tiers are opened in child processes.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <map>
#include <random>
#include <set>

#include "storage/disk_tier.h"
#include "storage/record.h"
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

// Runs `body` in a child process. Returns 0 when the child ended normally and
// no EXPECT has failed.
template <typename Body>
int RunInAChild(Body body) {
  const pid_t child = fork();
  if (child == 0) {
    body();
    _exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return status;
}

// One acknowledged step of the child.
struct Ack {
  enum class Step { kWritten, kAmended, kRemoving, kRemoved };
  int object;
  Step step;
  uint64_t cleaned;  // segments, by this child so far
};

class Child {
 public:
  Child(const std::string& directory, int pipe)
      : pipe_(pipe), tier_(DiskTier::Open(Options(directory))) {}

  // Writes objects and removes three of every four, so that cleaning runs all
  // the time. Reports each step. Never returns.
  [[noreturn]] void Run(int first) {
    if (!tier_.ok()) _exit(1);
    SyncDisk disk(tier_->get());
    for (int i = first;; ++i) {
      if (!disk.Write(MakeObject(i, 1, kObjectBytes), i % 3 == 0).ok()) {
        _exit(2);
      }
      Report(i, Ack::Step::kWritten);
      if (i % 2 == 0) {
        ObjectInfo with_ttl = MakeObject(i).info;
        with_ttl.expires = TestClock()->Now() + absl::Hours(1);
        if (!disk.Amend(with_ttl, i % 3 == 0).ok()) _exit(5);
        Report(i, Ack::Step::kAmended);
      }
      const int old = i - 4;
      if (old < first || old % 4 == 0) continue;
      // After a kill, this removal may or may not have happened.
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
  // Lets a child work for so many steps, kills it, and keeps its reports.
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
    // Reports that the child sends between the last step and its death count
    // too.
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

  void VerifyInAChild() {
    ASSERT_EQ(RunInAChild([this] { VerifyEverything(); }), 0)
        << "the child has printed the failures";
  }

  void VerifyEverything() {
    auto tier = DiskTier::Open(Options(directory_.path()));
    ASSERT_TRUE(tier.ok()) << tier.status();
    SyncDisk disk(tier->get());
    std::set<ChunkKey> with_ttl;
    ASSERT_TRUE((*tier)
                    ->ForEach([&](const ObjectInfo& info) {
                      if (info.expires <= absl::InfinitePast()) return;
                      with_ttl.insert(info.key);
                    })
                    .ok());
    for (const auto& [object, step] : steps_) {
      const TestObject expected = MakeObject(object, 1, kObjectBytes);
      const auto back = disk.Read(expected.info);
      const bool there = back.ok();
      EXPECT_TRUE(there || absl::IsNotFound(back.status())) << back.status();
      if (there) {
        EXPECT_EQ(*back, expected.bytes) << object;
      }
      const bool stored =
          step == Ack::Step::kWritten || step == Ack::Step::kAmended;
      EXPECT_TRUE(there || !stored) << object << " is lost";
      EXPECT_TRUE(step != Ack::Step::kAmended || index_is_lost_ ||
                  with_ttl.contains(expected.info.key))
          << object << " has lost its TTL";
      EXPECT_TRUE(!there || step != Ack::Step::kRemoved)
          << object << " is back";
    }
    EXPECT_EQ((*tier)->counters()["disk_damaged"], 0u);
  }

  TempDirectory directory_;
  std::map<int, Ack::Step> steps_;  // the last step of each object
  bool index_is_lost_ = false;
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
    if (round == kRounds / 2) index_is_lost_ = true;
    if (index_is_lost_ && round % 4 == 3) {
      std::filesystem::remove_all(directory_.path() + "/index");
    }
    VerifyInAChild();
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(cleaned_, 20u) << "too few cleanings for a kill to interrupt one";
  std::cout << kRounds << " kills, " << steps_.size() << " objects, "
            << cleaned_ << " segments cleaned meanwhile\n";
}

TEST_F(DiskCrashTest, SpaceTakenInAdvanceIsGivenBackAfterAKill) {
  const TestObject object = MakeObject(1);
  const uint64_t bytes = RecordBytes(object.info.bytes);
  ASSERT_EQ(RunInAChild([&] {
              auto tier = DiskTier::Open(Options(directory_.path()));
              _exit(SyncDisk(tier->get()).Write(object).ok() ? 0 : 1);
            }),
            0);
  ASSERT_EQ(RunInAChild([&] {
              auto tier = DiskTier::Open(Options(directory_.path()));
              ASSERT_TRUE(tier.ok()) << tier.status();
              EXPECT_EQ((*tier)->counters()["disk_segment_bytes"], bytes);
              EXPECT_EQ(std::filesystem::file_size(directory_.path() +
                                                   "/segment-00000001"),
                        bytes);
              EXPECT_EQ(*SyncDisk(tier->get()).Read(object.info), object.bytes);
            }),
            0);
}

TEST_F(DiskCrashTest, ADirectoryHasOneUser) {
  int opened[2];
  int done[2];
  ASSERT_EQ(pipe(opened), 0);
  ASSERT_EQ(pipe(done), 0);
  const pid_t user = fork();
  if (user == 0) {
    auto tier = DiskTier::Open(Options(directory_.path()));
    char byte = tier.ok() ? 1 : 0;
    if (write(opened[1], &byte, 1) != 1) _exit(1);
    _exit(read(done[0], &byte, 1) == 1 ? 0 : 1);
  }
  char byte = 0;
  ASSERT_EQ(read(opened[0], &byte, 1), 1);
  ASSERT_EQ(byte, 1);
  EXPECT_EQ(RunInAChild([&] {
              EXPECT_TRUE(absl::IsUnavailable(
                  DiskTier::Open(Options(directory_.path())).status()));
            }),
            0)
      << "another process got in";
  ASSERT_EQ(write(done[1], &byte, 1), 1);
  int status = -1;
  ASSERT_EQ(waitpid(user, &status, 0), user);
  EXPECT_EQ(status, 0);
  for (const int end : {opened[0], opened[1], done[0], done[1]}) close(end);
}

}  // namespace
}  // namespace kdn::storage
