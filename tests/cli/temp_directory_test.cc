#include "cli/temp_directory.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>

namespace kdn::cli {
namespace {

namespace fs = std::filesystem;

void FillDirectory(const std::string& path) {
  fs::create_directories(path + "/logs/deep");
  std::ofstream(path + "/logs/deep/n1.log") << "a line\n";
}

TEST(TempDirectoryTest, IsRemovedWithItsContents) {
  std::string path;
  {
    absl::StatusOr<TempDirectory> made =
        TempDirectory::Create(testing::TempDir(), "kdn-test-");
    ASSERT_TRUE(made.ok()) << made.status();
    path = made->path();
    FillDirectory(path);
  }
  EXPECT_FALSE(fs::exists(path));
}

TEST(TempDirectoryTest, StaysWhenKept) {
  std::string path;
  {
    TempDirectory made =
        *TempDirectory::Create(testing::TempDir(), "kdn-test-");
    path = made.path();
    made.Keep();
  }
  EXPECT_TRUE(fs::exists(path));
  fs::remove_all(path);
}

TEST(TempDirectoryTest, AMissingParentIsAnError) {
  const auto made = TempDirectory::Create("/proc/nowhere", "kdn-test-");
  EXPECT_TRUE(absl::IsUnavailable(made.status())) << made.status();
}

TEST(TempDirectoryTest, IsRemovedWhenASignalEndsTheProgram) {
  for (int number : {SIGINT, SIGTERM}) {
    int pipe_ends[2];
    ASSERT_EQ(pipe(pipe_ends), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      // execl starts a new program, so that the child has the thread that waits
      // for signals.
      execl("/proc/self/exe", "temp_directory", "--hold-a-directory",
            std::to_string(pipe_ends[1]).c_str(), nullptr);
      _exit(127);
    }
    close(pipe_ends[1]);
    char path[256] = {};
    ASSERT_GT(read(pipe_ends[0], path, sizeof(path) - 1), 0);
    close(pipe_ends[0]);
    EXPECT_TRUE(fs::exists(path)) << path;
    kill(child, number);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << status;
    EXPECT_EQ(WTERMSIG(status), number);
    EXPECT_FALSE(fs::exists(path)) << path;
  }
}

}  // namespace

// The child process of the signal test: makes a directory, reports its path and
// waits for a signal.
int HoldADirectory(int report) {
  absl::StatusOr<TempDirectory> made =
      TempDirectory::Create(testing::TempDir(), "kdn-test-");
  if (!made.ok()) return 1;
  FillDirectory(made->path());
  if (write(report, made->path().data(), made->path().size()) < 0) return 1;
  for (;;) pause();
}

}  // namespace kdn::cli

int main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[1]) == "--hold-a-directory") {
    return kdn::cli::HoldADirectory(std::stoi(argv[2]));
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
