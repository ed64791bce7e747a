// Engines that connect to a gateway under TLS.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "tests/rpc/faulty_proxy.h"
#include "tests/rpc/gateway/fixture.h"
#include "tests/rpc/tls/test_certificates.h"

namespace kdn::rpc {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class GatewayTlsTest : public GatewayFixture {
 protected:
  void SetUp() override {
    unsetenv("KDN_CA");
    GatewayFixture::SetUp();
    StartWith(certificates_.Load("n"));
  }
  void StartWith(std::shared_ptr<const TlsCredentials> tls,
                 absl::Duration hello_timeout = absl::Seconds(10)) {
    Gateway::Options options;
    options.tls = std::move(tls);
    options.hello_timeout = hello_timeout;
    StartGateway(options);
  }
  std::string tls_address(const char* host = "127.0.0.1") const {
    return absl::StrCat("tls://", host, ":", gateway_->tcp_port());
  }
  absl::StatusOr<std::unique_ptr<Client>> Dial(const std::string& address,
                                               const std::string& ca) const {
    return Client::Connect(address, {.name = "test", .ca = ca});
  }
  absl::StatusOr<std::unique_ptr<Client>> Dial(
      const std::string& address) const {
    return Dial(address, certificates_.ca_file());
  }
  std::unique_ptr<Knowledge> OpenSecurely(const std::string& address,
                                          const ModelSpec& model) {
    client_ = *Dial(address);
    auto knowledge = client_->Open(ns_, model);
    EXPECT_TRUE(knowledge.ok()) << knowledge.status();
    return *std::move(knowledge);
  }
  // Stores the chunk, retrieves it and compares the bytes.
  static void RoundTrip(Knowledge& knowledge, const TestChunk& chunk) {
    auto receipt = knowledge.Store(chunk.spec, chunk.view());
    ASSERT_TRUE(receipt.ok()) << receipt.status();
    Landing landing = MakeLanding(
        chunk.shape, KvStrides::TokenMajor(chunk.shape), chunk.shape.bytes());
    RetrieveSpec spec;
    spec.chunks.push_back({chunk.ref, chunk.spec.positions, landing.view});
    auto outcomes = knowledge.Retrieve(spec);
    ASSERT_TRUE(outcomes.ok()) << outcomes.status();
    EXPECT_EQ((*outcomes)[0].kind, OutcomeKind::kHit) << (*outcomes)[0].why;
    EXPECT_EQ(landing.memory, chunk.bytes);
  }

  TestCertificates certificates_;
};

TEST_F(GatewayTlsTest, StoredBytesComeBack) {
  for (const char* host : {"127.0.0.1", "localhost"}) {
    auto knowledge = OpenSecurely(tls_address(host), model_);
    EXPECT_FALSE(client_->shares_memory());
    const TestChunk chunk = MakeChunk(ns_, model_, host[0]);
    RoundTrip(*knowledge, chunk);
    const auto found = knowledge->Lookup({&chunk.ref, 1});
    ASSERT_TRUE(found.ok());
    EXPECT_TRUE((*found)[0].hit);
  }
}

TEST_F(GatewayTlsTest, LargeChunksComeBack) {
  ModelSpec large = TestModel();
  large.num_layers = 8;
  large.head_dim = 64;
  large.rope.rotary_dim = 64;
  auto knowledge = OpenSecurely(tls_address(), large);
  RoundTrip(*knowledge, MakeChunk(ns_, large, 1, 4096));  // 16 MiB of KV
}

TEST_F(GatewayTlsTest, TheUnixSocketStaysPlaintextAndShares) {
  auto knowledge = OpenOn(unix_address());
  auto region = client_->OpenMemory(4096);
  ASSERT_TRUE(region.ok());
  EXPECT_TRUE((*region)->shared());
}

TEST_F(GatewayTlsTest, TheAuthorityMayComeFromTheEnvironment) {
  setenv("KDN_CA", certificates_.ca_file().c_str(), 1);
  EXPECT_TRUE(Dial(tls_address(), "").ok());
  unsetenv("KDN_CA");
  const absl::Status none = Dial(tls_address(), "").status();
  EXPECT_TRUE(absl::IsInvalidArgument(none)) << none;
  EXPECT_THAT(std::string(none.message()),
              AllOf(HasSubstr("KDN_CA"), HasSubstr("--ca")));
}

TEST_F(GatewayTlsTest, ErrorsOfTheAuthoritiesNameTheFile) {
  const absl::Status missing = Dial(tls_address(), "/no/such.pem").status();
  EXPECT_TRUE(absl::IsNotFound(missing)) << missing;
  EXPECT_THAT(std::string(missing.message()), HasSubstr("/no/such.pem"));
  const std::string junk = certificates_.WriteFile("junk.pem", "junk");
  const absl::Status bad = Dial(tls_address(), junk).status();
  EXPECT_TRUE(absl::IsInvalidArgument(bad)) << bad;
  EXPECT_THAT(std::string(bad.message()), HasSubstr(junk));
}

TEST_F(GatewayTlsTest, AGatewayThatIsNotTrustedIsRefused) {
  const TestCertificates others;
  const absl::Status unknown = Dial(tls_address(), others.ca_file()).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(unknown)) << unknown;
  EXPECT_THAT(std::string(unknown.message()),
              AllOf(HasSubstr("an unknown authority has signed it"),
                    HasSubstr(others.ca_file()), HasSubstr(tls_address())));

  const absl::Time now = absl::Now();
  const auto start_with = [&](const IssuedCertificate& issued) {
    StartWith(TlsCredentials::Load(certificates_.Write("n", issued),
                                   now - absl::Minutes(30))
                  .value());
  };
  start_with(certificates_.Issue("n", {"10.0.0.1"}));
  const absl::Status name = Dial(tls_address()).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(name)) << name;
  EXPECT_THAT(std::string(name.message()),
              HasSubstr("it does not name 127.0.0.1"));

  start_with(certificates_.Issue(
      {"n", {"127.0.0.1"}}, {now - absl::Hours(1), now - absl::Minutes(1)}));
  const absl::Status expired = Dial(tls_address()).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(expired)) << expired;
  EXPECT_THAT(std::string(expired.message()), HasSubstr("it has expired"));
}

TEST_F(GatewayTlsTest, EachKindOfClientLearnsWhichKindOfGatewayItDialled) {
  const absl::Status plain = Dial(tcp_address()).status();
  EXPECT_TRUE(absl::IsUnavailable(plain)) << plain;
  EXPECT_THAT(std::string(plain.message()),
              HasSubstr(absl::StrCat("If this gateway accepts only TLS, dial ",
                                     tls_address())));
  EXPECT_TRUE(Eventually([&] { return meters_->Get("engines_refused") > 0; }));

  StartWith(nullptr);
  const absl::Status secure = Dial(tls_address()).status();
  EXPECT_TRUE(absl::IsUnavailable(secure)) << secure;
  EXPECT_THAT(std::string(secure.message()),
              HasSubstr(absl::StrCat("If this gateway does not use TLS, dial ",
                                     tcp_address())));
}

TEST_F(GatewayTlsTest, AddressesAreChecked) {
  for (const char* bad : {"tls://", "tls://host", "tls://host:", "tls://:80",
                          "tls://host:0", "tls://host:65536", "tls://::1:80",
                          "tls://[::1:80", "tls://unix:/tmp/x"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Dial(bad).status())) << bad;
  }
  // Nobody listens there, so the address was fine.
  EXPECT_TRUE(absl::IsUnavailable(Dial("tls://[::1]:1").status()));
}

TEST_F(GatewayTlsTest, AHandshakeThatStallsIsClosedWithTheHelloTimer) {
  StartWith(certificates_.Load("n"), absl::Milliseconds(300));
  std::vector<int> sockets;
  for (const std::vector<uint8_t>& bytes :
       {std::vector<uint8_t>{}, std::vector<uint8_t>{0x16, 3, 1},
        std::vector<uint8_t>{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc}}) {
    sockets.push_back(ConnectLocal(gateway_->tcp_port()));
    ASSERT_EQ(write(sockets.back(), bytes.data(), bytes.size()),
              static_cast<ssize_t>(bytes.size()));
  }
  EXPECT_TRUE(Eventually([&] { return gateway_->usage().connections == 3; }));
  EXPECT_TRUE(Eventually([&] { return gateway_->usage().connections == 0; }));
  for (const int fd : sockets) close(fd);
}

TEST_F(GatewayTlsTest, SilentHandshakesMakeRoomForAClient) {
  Gateway::Options options;
  options.tls = certificates_.Load("n");
  options.sessions_max = 8;
  options.hello_timeout = absl::Minutes(5);
  StartGateway(options);
  std::vector<int> sockets;
  for (int i = 0; i < 100; ++i) {
    sockets.push_back(ConnectLocal(gateway_->tcp_port()));
  }
  auto client = Dial(tls_address());
  EXPECT_TRUE(client.ok()) << client.status();
  for (const int fd : sockets) close(fd);
}

TEST_F(GatewayTlsTest, APlaintextHelloReachesNoParser) {
  const int fd = ConnectLocal(gateway_->tcp_port());
  const std::vector<uint8_t> answer =
      Exchange(fd, {0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 5000);
  close(fd);
  EXPECT_LE(answer.size(), 7u) << "at most an alert of TLS";
  EXPECT_EQ(gateway_->usage().received_bytes, 0u);
  EXPECT_TRUE(Eventually([&] { return gateway_->usage().connections == 0; }));
}

TEST_F(GatewayTlsTest, ACallEndsByItsDeadlineWhenTheConnectionStalls) {
  FaultyProxy proxy(gateway_->tcp_port(), {.stall_at = 6000});
  client_ = *Dial(absl::StrCat("tls://127.0.0.1:", proxy.port()));
  absl::Status status = absl::OkStatus();
  for (int i = 0; i < 200 && status.ok(); ++i) {
    status = client_->Ping(absl::Milliseconds(200));
  }
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
}

TEST_F(GatewayTlsTest, ACutConnectionIsUnavailable) {
  FaultyProxy proxy(gateway_->tcp_port(), {.cut_at = 6000});
  client_ = *Dial(absl::StrCat("tls://127.0.0.1:", proxy.port()));
  absl::Status status = absl::OkStatus();
  for (int i = 0; i < 200 && status.ok(); ++i) status = client_->Ping();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
}

TEST_F(GatewayTlsTest, AFlippedBitBreaksTheConnection) {
  FaultyProxy proxy(gateway_->tcp_port(), {.flip_bit_at = 6000});
  client_ = *Dial(absl::StrCat("tls://127.0.0.1:", proxy.port()));
  absl::Status status = absl::OkStatus();
  for (int i = 0; i < 200 && status.ok(); ++i) {
    status = client_->Ping(absl::Seconds(1));
  }
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
}

}  // namespace
}  // namespace kdn::rpc
