// kill -9 at any moment: what was acknowledged is there and whole, and what is
// there is whole.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <random>

#include "storage/disk_tier.h"
#include "tests/storage/disk_fixture.h"

namespace kdn::storage {
namespace {

DiskTier::Options Options(const std::string& directory) {
  DiskTier::Options options;
  options.directory = directory;
  options.capacity_bytes = 1u << 30;
  options.segment_bytes = 512u << 10;
  return options;
}

struct Ack {
  int object;
  bool removed;
};

// Writes, and removes now and then so that cleaning runs; reports each
// acknowledged step. Never returns.
[[noreturn]] void WriteUntilKilled(const std::string& directory, int pipe,
                                   int first) {
  auto tier = DiskTier::Open(Options(directory));
  if (!tier.ok()) _exit(1);
  SyncDisk disk(tier->get());
  for (int i = first;; ++i) {
    if (!disk.Write(MakeObject(i, 1, 20000), i % 3 == 0).ok()) _exit(2);
    const Ack wrote{i, false};
    if (write(pipe, &wrote, sizeof(wrote)) != sizeof(wrote)) _exit(3);
    if (i % 2 == 0) continue;
    // Before and after: a removal under way may or may not have happened.
    const Ack removing{i - 1, true};
    if (write(pipe, &removing, sizeof(removing)) != sizeof(removing)) _exit(3);
    if (!disk.Remove(MakeObject(i - 1).info).ok()) _exit(4);
  }
}

TEST(DiskCrashTest, NothingAcknowledgedIsLostAndNothingHalfWrittenIsSeen) {
  TempDirectory directory;
  std::mt19937 random(20);
  std::map<int, bool> state;  // object -> may be gone
  int first = 0;
  for (int round = 0; round < 12; ++round) {
    SCOPED_TRACE(round);
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      close(ends[0]);
      WriteUntilKilled(directory.path(), ends[1], first);
    }
    close(ends[1]);
    const int steps = static_cast<int>(random() % 120) + 1;
    Ack ack{};
    int got = 0;
    while (got < steps && read(ends[0], &ack, sizeof(ack)) == sizeof(ack)) {
      state[ack.object] = ack.removed;
      first = std::max(first, ack.object + 2);
      if (++got == steps) kill(child, SIGKILL);
    }
    // What it still said before it died counts as well.
    while (read(ends[0], &ack, sizeof(ack)) == sizeof(ack)) {
      state[ack.object] = ack.removed;
      first = std::max(first, ack.object + 2);
    }
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "exit " << WEXITSTATUS(status);

    auto tier = DiskTier::Open(Options(directory.path()));
    ASSERT_TRUE(tier.ok()) << tier.status();
    SyncDisk disk(tier->get());
    for (const auto& [object, may_be_gone] : state) {
      const TestObject expected = MakeObject(object, 1, 20000);
      const auto back = disk.Read(expected.info);
      if (back.ok()) {
        EXPECT_EQ(*back, expected.bytes) << object;
      } else {
        EXPECT_TRUE(may_be_gone && absl::IsNotFound(back.status()))
            << object << ": " << back.status();
      }
    }
    EXPECT_EQ((*tier)->counters().damaged, 0u);
  }
}

}  // namespace
}  // namespace kdn::storage
