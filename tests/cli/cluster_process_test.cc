#include "cli/cluster_process.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "absl/time/clock.h"
#include "cli/node_credentials.h"

namespace kdn::cli {
namespace {

namespace fs = std::filesystem;

class ClusterProcessTest : public testing::Test {
 protected:
  ~ClusterProcessTest() override { fs::remove_all(directory_); }

  ClusterConfig Write(const LocalClusterOptions& options = {}) {
    auto file = WriteLocalConfig(directory_, options);
    EXPECT_TRUE(file.ok()) << file.status();
    file_ = *file;
    auto config = LoadClusterConfig(file_);
    EXPECT_TRUE(config.ok()) << config.status();
    return *config;
  }

  const std::string directory_ = testing::TempDir() + "/kdn-cluster-process";
  std::string file_;
};

TEST_F(ClusterProcessTest, PortsAreOutsideTheRangeOfConnections) {
  const ClusterConfig config = Write();
  for (const NodeConfig& node : config.nodes) {
    for (const int port :
         {node.control_port, node.bulk_port, node.gateway_port}) {
      EXPECT_GE(port, 10000);
      EXPECT_LT(port, 32768);
    }
  }
}

TEST_F(ClusterProcessTest, NodesWithTlsGetCertificatesThatTheyCanLoad) {
  LocalClusterOptions options;
  options.tls = true;
  const ClusterConfig config = Write(options);
  for (const NodeConfig& node : config.nodes) {
    const auto credentials = LoadCredentials(config, node, absl::Now());
    ASSERT_TRUE(credentials.ok()) << credentials.status();
    ASSERT_NE(*credentials, nullptr);
    EXPECT_EQ((*credentials)->name(), node.id.name());
  }
}

TEST_F(ClusterProcessTest, ANodeThatHangsDoesNotKeepTheClusterUp) {
  const ClusterConfig config = Write();
  const std::string program = directory_ + "/node";
  std::ofstream(program) << "#!/bin/sh\nexec sleep 1000\n";
  fs::permissions(program, fs::perms::owner_all);
  pid_t pid = 0;
  {
    ClusterProcess cluster(program, file_, config, directory_ + "/logs");
    cluster.set_stop_timeout(absl::Milliseconds(100));
    ASSERT_TRUE(cluster.StartAll().ok());
    pid = cluster.pid(1);
    cluster.Signal(1, SIGSTOP);  // a stopped process does not get SIGTERM
  }
  EXPECT_EQ(kill(pid, 0), -1);
  EXPECT_EQ(errno, ESRCH);
}

}  // namespace
}  // namespace kdn::cli
