#include "cli/node_credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/rpc/tls/test_certificates.h"

namespace kdn::cli {
namespace {

using testing::HasSubstr;

class NodeCredentialsTest : public testing::Test {
 protected:
  NodeCredentialsTest() {
    config_.security.certificates = certificates_.directory();
    config_.nodes.resize(1);
    config_.nodes[0].id = NodeId("n1");
  }
  auto Load() const {
    return LoadCredentials(config_, config_.nodes[0], absl::Now());
  }

  const rpc::TestCertificates certificates_;
  ClusterConfig config_;
};

TEST_F(NodeCredentialsTest, ANodeLoadsItsOwnCertificate) {
  certificates_.Write("n1");
  const auto credentials = Load();
  ASSERT_TRUE(credentials.ok()) << credentials.status();
  EXPECT_EQ((*credentials)->name(), "n1");
}

TEST_F(NodeCredentialsTest, WithoutCertificatesThereIsNothingToLoad) {
  config_.security.certificates = "";
  EXPECT_EQ(Load().value(), nullptr);
}

TEST_F(NodeCredentialsTest, TheCertificateOfAnotherNodeIsRefused) {
  certificates_.Write("n1", certificates_.Issue("n2"));
  const absl::Status refused = Load().status();
  EXPECT_TRUE(absl::IsInvalidArgument(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("the certificate of n2, expected the one of n1"));
}

TEST_F(NodeCredentialsTest, ACertificateThatEndsWithin30DaysIsWarnedOf) {
  const absl::Time now = absl::FromUnixSeconds(1'800'000'000);
  EXPECT_EQ(ExpiryWarning("n1.pem", now + absl::Hours(24 * 31), now), "");
  const std::string warning =
      ExpiryWarning("n1.pem", now + absl::Hours(24 * 29 + 1), now);
  EXPECT_THAT(warning, HasSubstr("n1.pem"));
  EXPECT_THAT(warning, HasSubstr("ends in 29 days"));
  EXPECT_THAT(warning, HasSubstr("kdn certs --renew"));
}

}  // namespace
}  // namespace kdn::cli
