#include "cli/wiring.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace kdn::cli {
namespace {

using testing::HasSubstr;

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

TEST(WiringTest, AHostThatOnlyThisMachineReachesIsRefused) {
  NodeConfig self;
  self.id = NodeId("n1");
  self.host = "127.1";  // a name of 127.0.0.1, as a hosts file may have others
  ClusterConfig config;
  config.nodes = {self};
  const auto refused = RunningNode::Start(config, self);
  ASSERT_TRUE(absl::IsInvalidArgument(refused.status())) << refused.status();
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("host 127.1 is 127.0.0.1 on this machine"));
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("set `listen`"));
}

TEST(WiringTest, ANodeThatOtherMachinesReachNeedsCertificates) {
  NodeConfig self;
  self.id = NodeId("n1");
  for (const char* listen : {"0.0.0.0", "::", "192.0.2.7"}) {
    self.listen = listen;
    ClusterConfig config;
    config.nodes = {self};
    const absl::Status refused = RunningNode::Start(config, self).status();
    EXPECT_TRUE(absl::IsInvalidArgument(refused)) << refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr("kdn certs -c FILE"));
  }
}

TEST(WiringTest, ANodeWithoutItsCertificateDoesNotStart) {
  NodeConfig self;
  self.id = NodeId("n1");
  ClusterConfig config;
  config.security.certificates = "/nowhere";
  config.nodes = {self};
  const absl::Status refused = RunningNode::Start(config, self).status();
  EXPECT_TRUE(absl::IsNotFound(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("/nowhere/ca.pem"));
}

}  // namespace
}  // namespace kdn::cli
