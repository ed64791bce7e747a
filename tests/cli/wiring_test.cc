#include "cli/wiring.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace kdn::cli {
namespace {

TEST(WiringTest, EachNewDirectoryOfASocketLetsEverybodyPass) {
  char name[] = "/tmp/kdn-wiring-XXXXXX";
  ASSERT_NE(mkdtemp(name), nullptr);
  const std::string root = name;
  const mode_t before = umask(077);
  MakeSocketDirectory(root + "/a/b/engine.sock");
  umask(before);
  for (const char* made : {"/a", "/a/b"}) {
    struct stat status {};
    ASSERT_EQ(stat((root + made).c_str(), &status), 0) << made;
    EXPECT_EQ(status.st_mode & 0777, 0755u) << made;
  }
  std::filesystem::remove_all(root);
}

}  // namespace
}  // namespace kdn::cli
