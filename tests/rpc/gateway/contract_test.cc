// Tests the answers to clients that are wrong, old or hostile.
#include <capnp/any.h>
#include <capnp/schema.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <kj/io.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <optional>

#include "kv/host_memory.h"
#include "tests/rpc/gateway/fixture.h"
#include "tests/rpc/gateway/raw_client.h"

namespace kdn::rpc {
namespace {

using ::testing::HasSubstr;

class IgnorantSink final : public wire::LayerSink::Server {};

// Writes `number` as the set member of a union. The union is a group of
// `builder`.
template <typename Builder, typename Group>
void SetDiscriminant(Builder builder, Group, uint16_t number) {
  const auto proto =
      capnp::Schema::from<typename Group::Builds>().getProto().getStruct();
  auto data = capnp::AnyStruct::Builder(kj::mv(builder)).getDataSection();
  std::memcpy(data.begin() + 2 * proto.getDiscriminantOffset(), &number, 2);
}

class ContractTest : public GatewayFixture {
 protected:
  // Fills in a valid store request for the chunk, to which a test adds a
  // mistake.
  void FillStore(const TestChunk& chunk, wire::StoreRequest::Builder out) {
    out.setKey(ToWire(chunk.ref.key));
    const auto& tokens = chunk.spec.identity.tokens;
    FillList(tokens, out.initTokens(static_cast<unsigned>(tokens.size())));
    FillList(chunk.spec.positions,
             out.initPositions(static_cast<unsigned>(tokens.size())));
  }
  const TestChunk chunk_ = MakeChunk(ns_, model_, 1);
};

TEST_F(ContractTest, GoldenVectorsMustAgree) {
  RawClient client(tcp_address());
  auto hello = client.kdn().helloRequest();
  RawClient::FillHello(hello);
  hello.getGoldenVectors()[1].setKey(ToWire(ChunkKey()));
  auto answer = client.Send(kj::mv(hello));
  ASSERT_TRUE(answer.ok());
  const absl::Status status = FromWire(answer->getStatus());
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(status.message(), HasSubstr("first-chunk"));
  EXPECT_FALSE(answer->hasSession());
  EXPECT_EQ(answer->getGoldenVectors().size(), GoldenVectors().size());
}

TEST_F(ContractTest, HelloNeedsAGoldenVectorAndAVersion) {
  RawClient client(tcp_address());
  auto empty = client.kdn().helloRequest();
  empty.setProtocolVersion(wire::PROTOCOL_VERSION);
  EXPECT_TRUE(absl::IsInvalidArgument(client.StatusOf(kj::mv(empty))));
  auto old = client.kdn().helloRequest();
  RawClient::FillHello(old);
  old.setProtocolVersion(0);
  EXPECT_TRUE(absl::IsFailedPrecondition(client.StatusOf(kj::mv(old))));
  auto newer = client.kdn().helloRequest();
  RawClient::FillHello(newer);
  newer.setProtocolVersion(wire::PROTOCOL_VERSION + 5);
  auto answer = client.Send(kj::mv(newer));
  ASSERT_TRUE(answer.ok());
  EXPECT_TRUE(FromWire(answer->getStatus()).ok());
  EXPECT_EQ(answer->getProtocolVersion(), wire::PROTOCOL_VERSION);
}

TEST_F(ContractTest, StaleFingerprintIsRefusedLoudly) {
  RawClient client(tcp_address());
  auto session = client.Session();
  auto open = session.openRequest();
  open.setNamespace("tenant-a");
  ToWire(model_, open.initModel());
  ModelSpec other = model_;
  other.rope.theta = 1e6;
  open.setFingerprint(ToWire(FingerprintOf(other)));
  const absl::Status status = client.StatusOf(kj::mv(open));
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(status.message(), HasSubstr("stale fingerprint"));
}

TEST_F(ContractTest, InvalidModelsAndTenantsAreRefused) {
  RawClient client(tcp_address());
  auto session = client.Session();
  auto nameless = session.openRequest();
  ToWire(model_, nameless.initModel());
  nameless.setFingerprint(ToWire(FingerprintOf(model_)));
  EXPECT_TRUE(absl::IsInvalidArgument(client.StatusOf(kj::mv(nameless))));
  auto huge = session.openRequest();
  huge.setNamespace("tenant-a");
  ToWire(model_, huge.initModel());
  huge.getModel().setNumLayers(4000000000u);
  EXPECT_TRUE(absl::IsInvalidArgument(client.StatusOf(kj::mv(huge))));
  auto strange = session.openRequest();
  strange.setNamespace("tenant-a");
  ToWire(model_, strange.initModel());
  strange.getModel().setDtype(static_cast<wire::Dtype>(700));
  EXPECT_TRUE(absl::IsUnimplemented(client.StatusOf(kj::mv(strange))));
}

TEST_F(ContractTest, KeyThatIsNotTheGatewaysIsRefused) {
  RawClient client(tcp_address());
  auto knowledge = client.Open(ns_, model_);
  auto store = knowledge.storeRequest();
  FillStore(chunk_, store.initRequest());
  store.getRequest().setKey(ToWire(MakeChunk(ns_, model_, 2).ref.key));
  const absl::Status status = client.StatusOf(kj::mv(store));
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(status.message(), HasSubstr("client hashes differently"));
}

TEST_F(ContractTest, StoreFieldsAreChecked) {
  RawClient client(tcp_address());
  auto knowledge = client.Open(ns_, model_);
  const std::vector<std::function<void(wire::StoreRequest::Builder)>> mistakes =
      {[](auto r) { r.setTtlMs(UINT64_MAX); },
       [](auto r) { r.initPositions(2); },
       [](auto r) { r.getPositions().set(0, -1); },
       [](auto r) { r.initTokens(0); },
       [](auto r) { r.initTokens(100000); },
       [](auto r) { r.setVariant("no spaces allowed"); },
       [](auto r) { r.initKey(7); },
       [](auto r) { r.initCondition(31); },
       [](auto r) { r.setDepth(1); }};
  for (size_t i = 0; i < mistakes.size(); ++i) {
    auto store = knowledge.storeRequest();
    FillStore(chunk_, store.initRequest());
    mistakes[i](store.getRequest());
    EXPECT_TRUE(absl::IsInvalidArgument(client.StatusOf(kj::mv(store))))
        << "mistake " << i;
  }
  auto late = knowledge.storeRequest();
  FillStore(chunk_, late.initRequest());
  late.setDeadlineMs(600001);
  EXPECT_TRUE(absl::IsInvalidArgument(client.StatusOf(kj::mv(late))));
}

TEST_F(ContractTest, LayersThatDoNotFitAreReportedByCommit) {
  RawClient client(tcp_address());
  auto knowledge = client.Open(ns_, model_);
  const size_t bytes = chunk_.shape.layer_bytes();
  const std::vector<
      std::function<void(wire::StoreStream::LayerParams::Builder)>>
      mistakes = {
          [&](auto r) { r.initBytes(static_cast<unsigned>(bytes - 1)); },
          [&](auto r) { r.setOffset(1); },
          [&](auto r) { r.setOffset(UINT64_MAX); },
          [&](auto r) { r.getStrides().setToken(UINT64_MAX); },
          [&](auto r) { r.getStrides().setPart(1u << 30); },
          [&](auto r) { r.setCount(0); },
          [&](auto r) { r.setCount(2); },  // in the bytes of one
          [&](auto r) { r.setCount(UINT32_MAX); }};
  for (size_t i = 0; i < mistakes.size(); ++i) {
    auto store = knowledge.storeRequest();
    FillStore(chunk_, store.initRequest());
    auto stream = client.Send(kj::mv(store))->getStream();
    auto layer = stream.layerRequest();
    layer.initBytes(static_cast<unsigned>(bytes));
    ToWire(KvStrides::TokenMajor(chunk_.shape), layer.initStrides());
    mistakes[i](layer);
    ASSERT_TRUE(client.loop()
                    .WaitVoid(layer.send().ignoreResult(), absl::Seconds(5))
                    .ok());
    EXPECT_TRUE(
        absl::IsInvalidArgument(client.StatusOf(stream.commitRequest())))
        << "mistake " << i;
  }
}

TEST_F(ContractTest, ACallMayHaveSeveralLayers) {
  RawClient client(tcp_address());
  // A layer of 1 MiB is a run. The call of six has more runs than the node
  // encodes at a time.
  ModelSpec model = model_;
  model.num_layers = 9;
  model.num_kv_heads = 16;
  model.head_dim = 64;
  auto knowledge = client.Open(ns_, model);
  const TestChunk chunk = MakeChunk(ns_, model, 4, /*tokens=*/256);
  ASSERT_EQ(chunk.shape.layer_bytes(), 1u << 20);
  auto store = knowledge.storeRequest();
  FillStore(chunk, store.initRequest());
  auto stream = client.Send(kj::mv(store))->getStream();
  int first = 0;
  for (const int count : {1, 6, 2}) {
    auto layers = stream.layerRequest();
    const KvView view = chunk.view().Layers(first, count);
    layers.setBytes(
        {reinterpret_cast<const kj::byte*>(view.base()), view.shape().bytes()});
    ToWire(view.strides(), layers.initStrides());
    layers.setCount(static_cast<uint32_t>(count));
    ASSERT_TRUE(client.loop()
                    .WaitVoid(layers.send().ignoreResult(), absl::Seconds(5))
                    .ok());
    first += count;
  }
  const absl::Status committed = client.StatusOf(stream.commitRequest());
  EXPECT_TRUE(committed.ok()) << committed;
  OpenOn(tcp_address());
  auto reader = client_->Open(ns_, model);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_TRUE(HoldsIt(**reader, chunk));
}

TEST_F(ContractTest, SessionThatEndedEndsItsKnowledge) {
  RawClient client(tcp_address());
  auto knowledge = client.Open(ns_, model_);
  client.EndSession();
  EXPECT_TRUE(Eventually([&] {
    // The release is sent when this thread's loop runs.
    auto turn = client.loop().WaitVoid(kj::evalLater([] {}), absl::Seconds(1));
    return turn.ok() && node_.sessions_open() == 0;
  }));
  auto lookup = knowledge.lookupRequest();
  EXPECT_TRUE(absl::IsFailedPrecondition(client.StatusOf(kj::mv(lookup))));
}

// A newer client gets an error rather than an answer that ignores its value.
TEST_F(ContractTest, ValuesOfANewerClientAreUnimplemented) {
  RawClient client(tcp_address());
  auto knowledge = client.Open(ns_, model_);
  const std::vector<std::function<void(wire::StoreRequest::Builder)>> stores = {
      [](auto r) { r.setLevels(0x80); }, [](auto r) { r.setLevels(0x40); },
      [](auto r) { r.setDurability(static_cast<wire::Durability>(9)); }};
  for (size_t i = 0; i < stores.size(); ++i) {
    auto store = knowledge.storeRequest();
    FillStore(chunk_, store.initRequest());
    stores[i](store.getRequest());
    EXPECT_TRUE(absl::IsUnimplemented(client.StatusOf(kj::mv(store))))
        << "store " << i;
  }
  const std::vector<std::function<void(wire::RetrieveRequest::Builder)>>
      retrieves = {
          [](auto r) { r.setAccept(0x40); },
          [](auto r) {
            r.getDestination().setInline(static_cast<wire::Layout>(2));
          },
          [](auto r) { SetDiscriminant(r, r.getDestination(), 2); },
          [](auto r) { SetDiscriminant(r, r.getDestination(), 0xffff); }};
  for (size_t i = 0; i < retrieves.size(); ++i) {
    auto retrieve = knowledge.retrieveRequest();
    ToWire(chunk_.ref, retrieve.initRequest().initChunks(1)[0].initRef());
    retrieve.setSink(kj::heap<IgnorantSink>());
    retrieves[i](retrieve.getRequest());
    EXPECT_TRUE(absl::IsUnimplemented(client.StatusOf(kj::mv(retrieve))))
        << "retrieve " << i;
  }
  EXPECT_THAT(MakeClient(tcp_address())->node().features,
              testing::Contains("refuses-unknown"));
}

TEST_F(ContractTest, SharedMemoryNeedsAUnixSocketAndABudget) {
  RawClient tcp(tcp_address());
  auto open = tcp.Session().openMemoryRequest();
  open.setBytes(1 << 20);
  EXPECT_TRUE(absl::IsFailedPrecondition(tcp.StatusOf(kj::mv(open))));
  auto local = MakeClient(unix_address());
  EXPECT_TRUE(absl::IsInvalidArgument(local->OpenMemory(0).status()));
  EXPECT_TRUE(
      absl::IsResourceExhausted(local->OpenMemory(UINT64_MAX).status()));
  std::vector<std::unique_ptr<Region>> regions;
  for (int i = 0; i < 64; ++i) {
    auto region = local->OpenMemory(100);
    ASSERT_TRUE(region.ok()) << region.status();
    regions.push_back(*std::move(region));
  }
  EXPECT_EQ(gateway_->usage().memory_bytes, 64u * 4096);
  EXPECT_TRUE(absl::IsResourceExhausted(local->OpenMemory(100).status()));
  regions.clear();
  EXPECT_TRUE(Eventually([&] {
    return local->Ping().ok() && gateway_->usage().memory_bytes == 0;
  }));
}

// Fetches a descriptor with a ticket, like a client whose Cap'n Proto library
// cannot receive descriptors. Returns -1 when the gateway hangs up.
int FetchDescriptor(const std::string& path, const std::string& ticket) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un at{};
  at.sun_family = AF_UNIX;
  std::memcpy(at.sun_path, path.data(), path.size());
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof(at)), 0);
  EXPECT_EQ(send(fd, ticket.data(), ticket.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(ticket.size()));
  char byte;
  iovec data{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  int received = -1;
  if (recvmsg(fd, &message, MSG_CMSG_CLOEXEC) == 1) {
    const cmsghdr* header = CMSG_FIRSTHDR(&message);
    EXPECT_NE(header, nullptr);
    std::memcpy(&received, CMSG_DATA(header), sizeof(received));
  }
  close(fd);
  return received;
}

TEST_F(ContractTest, ATicketFetchesTheDescriptorOnce) {
  RawClient client(unix_address());
  auto request = client.Session().openMemoryRequest();
  request.setBytes(8192);
  std::optional<wire::SharedMemory::Client> memory =
      client.Send(kj::mv(request))->getMemory();
  auto ticket = [&] {
    auto answer = client.Send(memory->ticketRequest());
    const auto bytes = answer->getTicket();
    return std::pair(std::string(answer->getSocket().cStr()),
                     std::string(bytes.begin(), bytes.end()));
  };
  const auto [path, first] = ticket();
  const int fd = FetchDescriptor(path, first);
  ASSERT_GE(fd, 0);
  auto mapped = SharedMemory::Map(fd, 8192);
  ASSERT_TRUE(mapped.ok()) << mapped.status();
  EXPECT_EQ(FetchDescriptor(path, first), -1) << "it works once";
  const std::string second = ticket().second;
  const std::string third = ticket().second;
  EXPECT_EQ(FetchDescriptor(path, second), -1) << "another was asked for";
  EXPECT_EQ(FetchDescriptor(path, std::string(16, 'x')), -1);
  memory.reset();
  ASSERT_TRUE(client.Send(client.Session().infoRequest()).ok());
  EXPECT_EQ(FetchDescriptor(path, third), -1) << "the region is gone";
}

TEST_F(ContractTest, DestinationsOutsideTheirRegionAreRefused) {
  RawClient client(unix_address());
  auto knowledge = client.Open(ns_, model_);
  auto memory_request = client.Session().openMemoryRequest();
  memory_request.setBytes(chunk_.shape.bytes());
  wire::SharedMemory::Client memory =
      client.Send(kj::mv(memory_request))->getMemory();
  auto retrieve = [&](uint64_t offset, KvStrides strides,
                      wire::SharedMemory::Client where) {
    auto request = knowledge.retrieveRequest();
    auto chunk = request.initRequest().initChunks(1)[0];
    ToWire(chunk_.ref, chunk.initRef());
    FillList(chunk_.spec.positions, chunk.initPositions(5));
    chunk.setOffset(offset);
    ToWire(strides, chunk.initStrides());
    request.getRequest().getDestination().setMemory(kj::mv(where));
    return client.StatusOf(kj::mv(request));
  };
  const KvStrides fitting = KvStrides::TokenMajor(chunk_.shape);
  EXPECT_TRUE(retrieve(0, fitting, memory).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(retrieve(1, fitting, memory)));
  EXPECT_TRUE(
      absl::IsInvalidArgument(retrieve(UINT64_MAX - 8, fitting, memory)));
  KvStrides negative = fitting;
  negative.head = -16;
  EXPECT_TRUE(absl::IsInvalidArgument(retrieve(512, negative, memory)));
  EXPECT_TRUE(absl::IsInvalidArgument(retrieve(0, fitting, nullptr)));
  auto inline_without_sink = knowledge.retrieveRequest();
  inline_without_sink.initRequest().initChunks(1);
  EXPECT_TRUE(
      absl::IsInvalidArgument(client.StatusOf(kj::mv(inline_without_sink))));
}

TEST_F(ContractTest, MemoryThatIsOnlyPromisedEndsACallAtItsDeadline) {
  RawClient client(unix_address());
  auto knowledge = client.Open(ns_, model_);
  auto never = kj::newPromiseAndFulfiller<wire::SharedMemory::Client>();
  wire::SharedMemory::Client memory(kj::mv(never.promise));
  auto store = knowledge.storeRequest();
  FillStore(chunk_, store.initRequest());
  store.getRequest().setMemory(memory);
  store.setDeadlineMs(100);
  EXPECT_TRUE(absl::IsDeadlineExceeded(client.StatusOf(kj::mv(store))));
  auto retrieve = knowledge.retrieveRequest();
  retrieve.initRequest().getDestination().setMemory(memory);
  retrieve.setDeadlineMs(100);
  EXPECT_TRUE(absl::IsDeadlineExceeded(client.StatusOf(kj::mv(retrieve))));
}

// Receives the first layer and never answers.
class StuckSink final : public wire::LayerSink::Server {
 public:
  kj::Promise<void> data(DataContext) override { return kj::NEVER_DONE; }
};

TEST_F(ContractTest, AnEngineThatTakesNoLayersLosesItsScratch) {
  Gateway::Options options;
  options.engine_stall_max = absl::Milliseconds(100);
  StartGateway(options);
  auto stored = OpenOn(tcp_address());
  RawClient client(tcp_address());
  auto knowledge = client.Open(ns_, model_);
  // More than the sockets and the stream's window hold.
  auto request = knowledge.retrieveRequest();
  constexpr unsigned kChunks = 8;
  auto chunks = request.initRequest().initChunks(kChunks);
  for (unsigned i = 0; i < kChunks; ++i) {
    const TestChunk chunk =
        MakeChunk(ns_, model_, 5000 * static_cast<int>(i), 4096);
    ASSERT_TRUE(stored->Store(chunk.spec, chunk.view()).ok());
    ToWire(chunk.ref, chunks[i].initRef());
    FillList(chunk.spec.positions, chunks[i].initPositions(4096));
  }
  request.setSink(kj::heap<StuckSink>());
  request.setDeadlineMs(60'000);
  EXPECT_TRUE(absl::IsUnavailable(client.StatusOf(kj::mv(request))));
  EXPECT_TRUE(Eventually([&] { return gateway_->usage().scratch_bytes == 0; }));
}

TEST_F(ContractTest, AClientWithoutHelloIsDisconnected) {
  Gateway::Options options;
  options.hello_timeout = absl::Milliseconds(50);
  StartGateway(options);
  RawClient polite(tcp_address());
  polite.Session();
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  at.sin_port = htons(gateway_->tcp_port());
  kj::AutoCloseFd silent(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(connect(silent.get(), reinterpret_cast<sockaddr*>(&at), sizeof(at)),
            0);
  char byte;
  EXPECT_EQ(recv(silent.get(), &byte, 1, 0), 0);
  EXPECT_TRUE(polite.StatusOf(polite.Session().infoRequest()).ok());
}

TEST_F(ContractTest, MessageBeyondTheLimitCostsOnlyItsConnection) {
  Gateway::Options options;
  options.message_bytes_max = 1 << 20;
  StartGateway(options);
  auto other = MakeClient(tcp_address());
  RawClient client(tcp_address());
  auto knowledge = client.Open(ns_, model_);
  auto lookup = knowledge.lookupRequest();
  lookup.initChunks(100000);
  EXPECT_TRUE(absl::IsUnavailable(client.StatusOf(kj::mv(lookup))));
  EXPECT_TRUE(other->Ping().ok());
}

}  // namespace
}  // namespace kdn::rpc
