#include "rpc/gateway/gateway.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kv/clock.h"
#include "tests/rpc/gateway/fixture.h"

namespace kdn::rpc {
namespace {

using ::testing::HasSubstr;

using GatewayTest = GatewayFixture;

TEST_F(GatewayTest, HelloNamesTheNodeAndItsLimits) {
  auto tcp = MakeClient(tcp_address());
  EXPECT_EQ(tcp->node().id, NodeId("fake"));
  EXPECT_EQ(tcp->node().memory_bytes_max, 0u);
  EXPECT_GE(tcp->node().chunks_per_call_max, 10000u);
  auto local = MakeClient(unix_address());
  EXPECT_GT(local->node().memory_bytes_max, 0u);
  EXPECT_NE(local->session(), tcp->session());
  EXPECT_TRUE(local->Ping().ok());
  EXPECT_EQ(node_.sessions_open(), 2);
}

TEST_F(GatewayTest, StoredChunkIsLookedUpPinnedAndRemoved) {
  for (const std::string& address : {tcp_address(), unix_address()}) {
    auto knowledge = OpenOn(address);
    const TestChunk chunk = MakeChunk(ns_, model_, 1);
    const TestChunk other = MakeChunk(ns_, model_, 2);
    const std::vector<ChunkRef> refs = {chunk.ref, other.ref};
    auto receipt = knowledge->Store(chunk.spec, chunk.view());
    ASSERT_TRUE(receipt.ok()) << receipt.status();
    EXPECT_EQ(receipt->key, chunk.ref.key);
    EXPECT_FALSE(receipt->existed);
    EXPECT_EQ(receipt->holders.size(), 2u);
    EXPECT_TRUE(knowledge->Store(chunk.spec, chunk.view())->existed);

    auto found = knowledge->Lookup(refs);
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_TRUE((*found)[0].hit);
    EXPECT_EQ((*found)[0].node, NodeId("fake"));
    EXPECT_EQ((*found)[0].tier, Tier::kDisk);
    EXPECT_EQ((*found)[0].version, ObjectVersion(7));
    EXPECT_FALSE((*found)[1].hit);

    auto pinned = knowledge->Pin(refs, absl::Minutes(1));
    ASSERT_TRUE(pinned.ok());
    EXPECT_TRUE((*pinned)[0].ok());
    EXPECT_TRUE(absl::IsNotFound((*pinned)[1]));
    EXPECT_EQ(node_.pins(), 1);
    auto unpinned = knowledge->Unpin({refs.data(), 1});
    ASSERT_TRUE(unpinned.ok());
    EXPECT_TRUE((*unpinned)[0].ok());
    auto removed = knowledge->Remove(refs);
    ASSERT_TRUE(removed.ok());
    EXPECT_TRUE((*removed)[0].ok());
    EXPECT_TRUE(absl::IsNotFound((*removed)[1]));
  }
}

TEST_F(GatewayTest, TenThousandLookupsInOneCall) {
  auto knowledge = OpenOn(tcp_address());
  const TestChunk chunk = MakeChunk(ns_, model_, 3);
  ASSERT_TRUE(knowledge->Store(chunk.spec, chunk.view()).ok());
  std::vector<ChunkRef> refs(10000, MakeChunk(ns_, model_, 4).ref);
  refs[9999] = chunk.ref;
  auto found = knowledge->Lookup(refs);
  ASSERT_TRUE(found.ok()) << found.status();
  ASSERT_EQ(found->size(), 10000u);
  EXPECT_FALSE((*found)[0].hit);
  EXPECT_TRUE((*found)[9999].hit);
  refs.resize(client_->node().chunks_per_call_max + 1, chunk.ref);
  EXPECT_TRUE(absl::IsInvalidArgument(knowledge->Lookup(refs).status()));
}

TEST_F(GatewayTest, TenantsDoNotSeeEachOther) {
  auto knowledge = OpenOn(tcp_address());
  const TestChunk chunk = MakeChunk(ns_, model_, 5);
  ASSERT_TRUE(knowledge->Store(chunk.spec, chunk.view()).ok());
  auto other = client_->Open(*Namespace::Parse("tenant-b"), model_);
  ASSERT_TRUE(other.ok());
  auto found = (*other)->Lookup({&chunk.ref, 1});
  ASSERT_TRUE(found.ok());
  EXPECT_FALSE((*found)[0].hit);
  EXPECT_TRUE(absl::IsInvalidArgument(
      (*other)->Store(chunk.spec, chunk.view()).status()));
}

TEST_F(GatewayTest, StatusShowsEveryNode) {
  auto client = MakeClient(tcp_address());
  auto nodes = client->Status();
  ASSERT_TRUE(nodes.ok()) << nodes.status();
  ASSERT_EQ(nodes->size(), 2u);
  EXPECT_TRUE((*nodes)[0].alive);
  EXPECT_EQ((*nodes)[0].metrics["lookups"], 11u);
  EXPECT_EQ((*nodes)[0].metrics["disk_io_uring"], 1u);
  EXPECT_EQ((*nodes)[0].metrics["uptime_s"], 5u);
  EXPECT_FALSE((*nodes)[1].alive);
}

TEST_F(GatewayTest, ClientThatGoesAwayLosesItsPins) {
  auto knowledge = OpenOn(tcp_address());
  const TestChunk chunk = MakeChunk(ns_, model_, 6);
  ASSERT_TRUE(knowledge->Store(chunk.spec, chunk.view()).ok());
  ASSERT_TRUE(knowledge->Pin({&chunk.ref, 1}, absl::Minutes(5)).ok());
  EXPECT_EQ(node_.pins(), 1);
  knowledge = nullptr;
  client_ = nullptr;
  EXPECT_TRUE(node_.WaitForSessionsOpen(0));
  EXPECT_EQ(node_.pins(), 0);
}

TEST_F(GatewayTest, APinThatIsMadeAfterItsClientIsGoneIsReleased) {
  auto knowledge = OpenOn(tcp_address());
  const TestChunk chunk = MakeChunk(ns_, model_, 6);
  ASSERT_TRUE(knowledge->Store(chunk.spec, chunk.view()).ok());
  node_.BeSilent();
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      knowledge->Pin({&chunk.ref, 1}, absl::Minutes(5), absl::Milliseconds(50))
          .status()));
  knowledge = nullptr;
  client_ = nullptr;
  EXPECT_TRUE(node_.WaitForSessionsOpen(0));
  node_.Speak();
  EXPECT_TRUE(Eventually([&] { return node_.pins_made() == 1 && AllIdle(); }));
}

TEST_F(GatewayTest, SilentNodeMeansDeadlineExceeded) {
  auto knowledge = OpenOn(tcp_address());
  const TestChunk chunk = MakeChunk(ns_, model_, 7);
  node_.BeSilent();
  const absl::Duration timeout = absl::Milliseconds(60);
  const absl::Time began = SteadyNow();
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      knowledge->Lookup({&chunk.ref, 1}, timeout).status()));
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      knowledge->Store(chunk.spec, chunk.view(), timeout).status()));
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      knowledge->Pin({&chunk.ref, 1}, absl::Minutes(1), timeout).status()));
  EXPECT_TRUE(absl::IsDeadlineExceeded(client_->Status(timeout).status()));
  Landing landing = MakeLanding(chunk.shape, KvStrides::TokenMajor(chunk.shape),
                                chunk.shape.bytes());
  auto outcomes = knowledge->Retrieve(
      {.chunks = {{chunk.ref, chunk.spec.positions, landing.view}}}, nullptr,
      timeout);
  ASSERT_TRUE(outcomes.ok()) << outcomes.status();
  EXPECT_EQ((*outcomes)[0].kind, OutcomeKind::kFailed);
  EXPECT_TRUE(absl::IsDeadlineExceeded((*outcomes)[0].why));
  EXPECT_GE(SteadyNow() - began, 5 * timeout);
  EXPECT_LT(SteadyNow() - began, absl::Seconds(15));
  EXPECT_TRUE(client_->Ping().ok()) << "the session outlives late calls";
  node_.Speak();
}

TEST_F(GatewayTest, PortInUseNamesTheAddress) {
  Gateway::Options options;
  options.tcp_port = gateway_->tcp_port();
  auto second = Gateway::Start(options, &node_);
  ASSERT_TRUE(absl::IsAlreadyExists(second.status())) << second.status();
  EXPECT_THAT(second.status().message(), HasSubstr(tcp_address()));
  options.tcp_host.clear();
  options.unix_path = directory_ + "/engine.sock";
  second = Gateway::Start(options, &node_);
  ASSERT_TRUE(absl::IsAlreadyExists(second.status())) << second.status();
  EXPECT_TRUE(MakeClient(unix_address())->Ping().ok());
}

TEST_F(GatewayTest, NobodyListeningIsUnavailable) {
  const std::string address = tcp_address();
  gateway_->Stop();
  auto client = Client::Connect(address);
  EXPECT_TRUE(absl::IsUnavailable(client.status())) << client.status();
  EXPECT_TRUE(absl::IsInvalidArgument(Client::Connect("nonsense").status()));
}

TEST_F(GatewayTest, StoppedGatewayIsUnavailableToItsClients) {
  auto knowledge = OpenOn(tcp_address());
  const TestChunk chunk = MakeChunk(ns_, model_, 8);
  gateway_->Stop();
  EXPECT_TRUE(absl::IsUnavailable(knowledge->Lookup({&chunk.ref, 1}).status()));
  EXPECT_FALSE(client_->connected());
}

TEST_F(GatewayTest, ASocketThatThisUserMayNotOpenIsNamedAsSuch) {
  const std::string path = directory_ + "/engine.sock";
  ASSERT_EQ(chmod(path.c_str(), 0), 0);
  // Root may open every socket.
  const bool root = geteuid() == 0;
  if (root) {
    ASSERT_EQ(chmod(directory_.c_str(), 0755), 0);
    ASSERT_EQ(seteuid(65534), 0);
  }
  const auto client = Client::Connect(unix_address());
  if (root) {
    ASSERT_EQ(seteuid(0), 0);
  }
  EXPECT_TRUE(absl::IsPermissionDenied(client.status())) << client.status();
  EXPECT_THAT(client.status().message(), HasSubstr("gateway_socket_group"));
}

TEST_F(GatewayTest, AGatewayIsReachedOverIPv6) {
  Gateway::Options options;
  options.tcp_host = "::1";
  StartGateway(options);
  auto client = Client::Connect(absl::StrCat("[::1]:", gateway_->tcp_port()));
  EXPECT_TRUE(client.ok()) << client.status();
  EXPECT_FALSE(Client::Connect(tcp_address()).ok()) << "wider than it says";
}

TEST_F(GatewayTest, SessionsAreBounded) {
  Gateway::Options options;
  options.sessions_max = 2;
  StartGateway(options);
  auto first = MakeClient(unix_address());
  auto second = MakeClient(unix_address());
  std::vector<std::unique_ptr<Knowledge>> opened;
  for (const auto* client : {&first, &second}) {
    opened.push_back(*(*client)->Open(ns_, model_));
  }
  auto third = Client::Connect(unix_address());
  EXPECT_TRUE(absl::IsResourceExhausted(third.status())) << third.status();
  opened.clear();
  first = nullptr;
  EXPECT_TRUE(Eventually([&] { return Client::Connect(unix_address()).ok(); }));
}

}  // namespace
}  // namespace kdn::rpc
