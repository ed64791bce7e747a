#include "storage/new_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace kdn::storage {
namespace {

using testing::HasSubstr;

class NewFileTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_NE(mkdtemp(directory_.data()), nullptr); }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string PathOf(const std::string& name) const {
    return directory_ + "/" + name;
  }
  static std::string TextOf(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }
  long FilesLeft() const {
    return std::distance(std::filesystem::directory_iterator(directory_), {});
  }

 private:
  std::string directory_ = "/tmp/kdn-new-file-XXXXXX";
};

TEST_F(NewFileTest, TheOldFileIsThereUntilTheCommit) {
  std::ofstream(PathOf("f")) << "old";
  auto file = NewFile::Write(PathOf("f"), "new", 0600);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(TextOf(PathOf("f")), "old");
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_EQ(TextOf(PathOf("f")), "new");
  struct stat status {};
  ASSERT_EQ(stat(PathOf("f").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  EXPECT_EQ(FilesLeft(), 1);
}

TEST_F(NewFileTest, WhatIsNotCommittedIsRemoved) {
  { ASSERT_TRUE(NewFile::Write(PathOf("f"), "new").ok()); }
  EXPECT_EQ(FilesLeft(), 0);
}

TEST_F(NewFileTest, AFullDiskLeavesNothing) {
  // A limit on the size of files, because a test has no disk to fill.
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old_action = signal(SIGXFSZ, SIG_IGN);
  const rlimit least{4, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &least), 0);
  const auto file = NewFile::Write(PathOf("f"), "more than four bytes");
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, old_action);
  EXPECT_TRUE(absl::IsUnavailable(file.status())) << file.status();
  EXPECT_THAT(std::string(file.status().message()), HasSubstr(PathOf("f")));
  EXPECT_EQ(FilesLeft(), 0);
}

}  // namespace
}  // namespace kdn::storage
