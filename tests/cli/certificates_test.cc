#include "cli/certificates.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include "absl/time/clock.h"
#include "rpc/tls/credentials.h"

namespace kdn::cli {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class CertificatesTest : public testing::Test {
 protected:
  CertificatesTest() {
    for (const char* id : {"n1", "n2"}) {
      config_.nodes.emplace_back();
      config_.nodes.back().id = NodeId(id);
      config_.nodes.back().host = std::string(id) + ".internal";
    }
  }
  void SetUp() override {
    ASSERT_NE(mkdtemp(parent_.data()), nullptr);
    options_.directory = parent_ + "/etc/certs";
  }
  void TearDown() override { fs::remove_all(parent_); }

  absl::StatusOr<CertificateReport> Make(absl::Time now = absl::Now()) const {
    return MakeCertificates(config_, options_, now);
  }
  CertificateReport Made() const {
    auto report = Make();
    EXPECT_TRUE(report.ok()) << report.status();
    return *std::move(report);
  }
  std::string PathOf(const std::string& name) const {
    return options_.directory + "/" + name;
  }
  absl::Status LoadNode(const std::string& id) const {
    return rpc::TlsCredentials::Load(
               {PathOf("ca.pem"), PathOf(id + ".pem"), PathOf(id + ".key")},
               absl::Now())
        .status();
  }
  // The files in the directory, with their texts.
  std::map<std::string, std::string> Files() const {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::directory_iterator(options_.directory)) {
      std::ostringstream text;
      text << std::ifstream(entry.path()).rdbuf();
      files[entry.path().filename().string()] = text.str();
    }
    return files;
  }
  static mode_t ModeOf(const std::string& path) {
    struct stat status {};
    EXPECT_EQ(stat(path.c_str(), &status), 0) << path;
    return status.st_mode & 0777;
  }
  void ExpectFails(absl::StatusCode code, const std::string& part) const {
    const auto before = Files();
    const absl::Status status = Make().status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
    EXPECT_EQ(Files(), before) << "a failure changes nothing";
  }

  ClusterConfig config_;
  CertificateOptions options_;
  std::string parent_ = "/tmp/kdn-certificates-XXXXXX";
};

TEST_F(CertificatesTest, EveryNodeGetsFilesThatItCanLoad) {
  const CertificateReport report = Made();
  EXPECT_TRUE(report.authority.written);
  ASSERT_EQ(report.nodes.size(), 2u);
  for (const CertificateState& node : report.nodes) {
    EXPECT_TRUE(node.written);
    EXPECT_EQ(node.problem, "");
    EXPECT_TRUE(LoadNode(node.name).ok()) << LoadNode(node.name);
    EXPECT_EQ(ModeOf(node.key), 0600u);
  }
  EXPECT_EQ(Files().size(), 6u);
  EXPECT_EQ(ModeOf(PathOf("ca.key")), 0600u);
  EXPECT_EQ(ModeOf(options_.directory), 0700u);
}

TEST_F(CertificatesTest, WhatIsThereStaysAndANewNodeIsAdded) {
  Made();
  auto before = Files();
  config_.nodes.emplace_back();
  config_.nodes.back().id = NodeId("n3");
  const CertificateReport report = Made();
  EXPECT_FALSE(report.authority.written);
  EXPECT_FALSE(report.nodes[0].written);
  EXPECT_TRUE(report.nodes[2].written);
  auto after = Files();
  after.erase("n3.pem");
  after.erase("n3.key");
  EXPECT_EQ(after, before);
  EXPECT_TRUE(LoadNode("n3").ok()) << LoadNode("n3");
}

TEST_F(CertificatesTest, RenewReplacesTheNodesFilesAndNotTheAuthority) {
  Made();
  const auto before = Files();
  options_.renew = true;
  EXPECT_TRUE(Made().nodes[1].written);
  const auto after = Files();
  for (const char* same : {"ca.pem", "ca.key"}) {
    EXPECT_EQ(after.at(same), before.at(same));
  }
  for (const char* changed : {"n1.pem", "n1.key", "n2.pem", "n2.key"}) {
    EXPECT_NE(after.at(changed), before.at(changed));
  }
  EXPECT_TRUE(LoadNode("n1").ok()) << LoadNode("n1");
}

TEST_F(CertificatesTest, TheAuthoritysKeyIsNeededOnlyToSign) {
  Made();
  unlink(PathOf("ca.key").c_str());
  EXPECT_TRUE(Make().ok());
  options_.renew = true;
  ExpectFails(absl::StatusCode::kFailedPrecondition,
              PathOf("ca.key") + " is not, which signs");
}

TEST_F(CertificatesTest, HalfOfAPairIsNotCompleted) {
  Made();
  const auto before = Files();
  unlink(PathOf("n1.pem").c_str());
  ExpectFails(absl::StatusCode::kFailedPrecondition,
              PathOf("n1.key") + " is there without " + PathOf("n1.pem"));
  options_.renew = true;
  EXPECT_TRUE(Make().ok());
  unlink(PathOf("ca.pem").c_str());
  ExpectFails(absl::StatusCode::kFailedPrecondition,
              PathOf("ca.pem") + " is not: copy it back");
}

TEST_F(CertificatesTest, ADanglingLinkIsNotOverwritten) {
  fs::create_directories(options_.directory);
  fs::create_symlink("/nowhere", PathOf("n1.key"));
  ExpectFails(absl::StatusCode::kFailedPrecondition, "is there without");
}

TEST_F(CertificatesTest, ANameThatIsNoFileNameIsRefused) {
  config_.nodes[1].id = NodeId("../n2");
  const absl::Status refused = Make().status();
  EXPECT_TRUE(absl::IsInvalidArgument(refused)) << refused;
  EXPECT_EQ(Files().size(), 0u);
}

TEST_F(CertificatesTest, ADirectoryThatCannotBeMadeIsNamed) {
  std::ofstream(parent_ + "/etc") << "a file";
  const absl::Status refused = Make().status();
  EXPECT_TRUE(absl::IsUnavailable(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr(parent_ + "/etc"));
}

TEST_F(CertificatesTest, AFullDiskLeavesNoHalfWrittenFile) {
  fs::create_directories(options_.directory);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old_action = signal(SIGXFSZ, SIG_IGN);
  const rlimit least{300, before.rlim_max};  // a key fits, a certificate not
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &least), 0);
  const absl::Status full = Make().status();
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, old_action);
  EXPECT_TRUE(absl::IsUnavailable(full)) << full;
  EXPECT_EQ(Files().size(), 0u);
}

TEST_F(CertificatesTest, TwoProcessesDoNotMakeCertificatesAtOnce) {
  Made();
  const int other = open(options_.directory.c_str(), O_RDONLY | O_DIRECTORY);
  ASSERT_EQ(flock(other, LOCK_EX), 0);
  ExpectFails(absl::StatusCode::kUnavailable, "another process");
  close(other);
  EXPECT_TRUE(Make().ok());
}

TEST_F(CertificatesTest, AKeptCertificateThatNodesRefuseHasAProblem) {
  Made();
  config_.nodes[0].host = "elsewhere.internal";
  EXPECT_THAT(Made().nodes[0].problem,
              HasSubstr("lacks the names elsewhere.internal"));
  EXPECT_EQ(Made().nodes[1].problem, "");
  const auto later = Make(absl::Now() + absl::Hours(24 * 731));
  ASSERT_TRUE(later.ok()) << later.status();
  EXPECT_THAT(later->nodes[1].problem, HasSubstr("n2 ended at"));
}

TEST_F(CertificatesTest, AnAuthorityThatHasEndedSignsNothing) {
  Made();
  options_.renew = true;
  const absl::Status ended =
      Make(absl::Now() + absl::Hours(24 * 3651)).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(ended)) << ended;
  EXPECT_THAT(std::string(ended.message()), HasSubstr(PathOf("ca.pem")));
}

TEST_F(CertificatesTest, AClustersNameMayBeAnyText) {
  for (const std::string& name : {std::string("caf\xc3\xa9"),
                                  std::string(100, 'c'), std::string("\xff")}) {
    config_.name = name;
    options_.directory = parent_ + "/" + std::to_string(name.size());
    EXPECT_TRUE(Make().ok()) << Make().status();
  }
}

TEST(HostsOfTest, ACertificateHasTheAddressesThatAreDialled) {
  NodeConfig node;
  node.host = "kdn-a.internal";
  node.listen = "10.0.0.7";
  EXPECT_THAT(HostsOf(node, {"kdn"}),
              testing::ElementsAre("kdn-a.internal", "10.0.0.7", "kdn",
                                   "localhost", "127.0.0.1", "::1"));
  node.listen = "0.0.0.0";
  EXPECT_THAT(
      HostsOf(node, {}),
      testing::ElementsAre("kdn-a.internal", "localhost", "127.0.0.1", "::1"));
}

}  // namespace
}  // namespace kdn::cli
