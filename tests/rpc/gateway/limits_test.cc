// Tests what one client can take from a gateway, and from its other clients.
#include <capnp/any.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <thread>
#include <vector>

#include "tests/rpc/faulty_proxy.h"
#include "tests/rpc/gateway/fixture.h"
#include "tests/rpc/gateway/raw_client.h"

namespace kdn::rpc {
namespace {

using ::testing::HasSubstr;
using Bytes = std::vector<uint8_t>;

constexpr uint32_t kMiB = 1u << 20;

// The segment table of a message of one segment.
Bytes HeaderOf(uint32_t bytes) {
  const uint32_t table[] = {0, bytes / 8};
  Bytes out(sizeof(table));
  std::memcpy(out.data(), table, sizeof(table));
  return out;
}

// True when the other side hangs up within 20 s; a correct gateway does so long
// before.
bool HangsUp(int fd) {
  for (;;) {
    pollfd waiting{fd, POLLIN, 0};
    char bytes[4096];
    if (poll(&waiting, 1, 20'000) != 1) return false;
    if (recv(fd, bytes, sizeof(bytes), 0) <= 0) return true;
  }
}

void SendAll(int fd, const Bytes& bytes) {
  size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t count =
        send(fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (count <= 0) return;
    sent += static_cast<size_t>(count);
  }
}

class LimitsTest : public GatewayFixture {
 protected:
  int Dial() { return ConnectLocal(gateway_->tcp_port()); }
  int DialUnix(const std::string& path) {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    std::memcpy(at.sun_path, path.data(), path.size());
    EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof(at)), 0);
    return fd;
  }
  static void CloseAll(std::vector<int>& fds) {
    for (const int fd : fds) close(fd);
    fds.clear();
  }
  static capnp::Request<wire::Knowledge::LookupParams,
                        wire::Knowledge::LookupResults>
  LookupOf(wire::Knowledge::Client& knowledge, const ChunkRef& ref,
           unsigned count, uint32_t deadline_ms) {
    auto request = knowledge.lookupRequest();
    auto chunks = request.initChunks(count);
    for (unsigned i = 0; i < count; ++i) ToWire(ref, chunks[i]);
    request.setDeadlineMs(deadline_ms);
    return request;
  }
  // Connects clients that use their session until the gateway refuses one.
  // Returns how many it accepted.
  int OpenUntilRefused(const std::string& address,
                       std::vector<std::unique_ptr<Client>>* clients,
                       std::vector<std::unique_ptr<Knowledge>>* used) {
    for (int count = 0; count < 100; ++count) {
      auto client = Client::Connect(address);
      if (!client.ok()) return count;
      used->push_back(*(*client)->Open(ns_, model_));
      clients->push_back(*std::move(client));
    }
    return 100;
  }
  // A retrieve of about 60 KB into shared memory.
  capnp::Request<wire::Knowledge::RetrieveParams,
                 wire::Knowledge::RetrieveResults>
  RetrieveInto(wire::Knowledge::Client& knowledge,
               wire::SharedMemory::Client memory) {
    auto request = knowledge.retrieveRequest();
    auto chunks = request.initRequest().initChunks(4);
    for (unsigned i = 0; i < 4; ++i) {
      ToWire(chunk_.ref, chunks[i].initRef());
      chunks[i].initPositions(3750);
    }
    request.getRequest().getDestination().setMemory(kj::mv(memory));
    request.setDeadlineMs(60'000);
    return request;
  }
  const TestChunk chunk_ = MakeChunk(ns_, model_, 1);
};

TEST_F(LimitsTest, AMessageBeforeHelloIsSmall) {
  Gateway::Options options;
  options.hello_timeout = absl::Minutes(5);
  StartGateway(options);
  const int large = Dial();
  SendAll(large, HeaderOf(kMiB));
  EXPECT_TRUE(HangsUp(large));
  const int many = Dial();
  SendAll(many, {0xff, 0xff, 0, 0, 1, 0, 0, 0});
  EXPECT_TRUE(HangsUp(many));
  close(large);
  close(many);
  EXPECT_GE(meters_->Get("engines_refused"), 2u);
}

TEST_F(LimitsTest, AListOfNothingInAHelloTakesNoTime) {
  RawClient client(tcp_address());
  auto hello = client.kdn().helloRequest();
  hello.setProtocolVersion(wire::PROTOCOL_VERSION);
  capnp::AnyStruct::Builder(wire::Kdn::HelloParams::Builder(hello))
      .getPointerSection()[1]
      .initAsListOfAnyStruct(0, 0, 33'000'000);
  const absl::Time begun = SteadyNow();
  EXPECT_FALSE(client.StatusOf(kj::mv(hello)).ok());
  EXPECT_LT(SteadyNow() - begun, absl::Seconds(2)) << "3.8 s without a limit";
  RawClient other(tcp_address());
  auto many = other.kdn().helloRequest();
  many.setProtocolVersion(wire::PROTOCOL_VERSION);
  many.initGoldenVectors(65);
  const absl::Status status = other.StatusOf(kj::mv(many));
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(status.message(), HasSubstr("golden vectors"));
}

TEST_F(LimitsTest, MessagesThatAreNotFinishedShareOneBudget) {
  Gateway::Options options;
  options.message_bytes_max = kMiB;
  options.received_bytes_max = kMiB + (kMiB / 2);
  options.message_stall_max = absl::Seconds(2);
  StartGateway(options);
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 4; ++i) {
    clients.push_back(std::make_unique<RawClient>(tcp_address()));
    clients.back()->Session();
    Bytes part = HeaderOf(kMiB);
    part.resize(part.size() + kMiB / 2);
    clients.back()->SendBytes(part);
  }
  EXPECT_TRUE(
      Eventually([&] { return gateway_->usage().received_bytes == kMiB; }));
  EXPECT_TRUE(MakeClient(tcp_address())->Ping().ok())
      << "small messages need no room";
  EXPECT_LE(gateway_->usage().received_bytes, options.received_bytes_max);
  // Each one stalls, and its room goes to the next one.
  EXPECT_TRUE(Eventually([&] { return gateway_->usage().connections == 0; }));
  EXPECT_EQ(gateway_->usage().received_bytes, 0u);
}

TEST_F(LimitsTest, ASlowMessageGivesUpItsRoomWhenOthersWait) {
  Gateway::Options options;
  options.message_bytes_max = 2 * kMiB;
  options.received_bytes_max = 3 * kMiB;
  options.message_stall_max = absl::Minutes(5);
  options.message_stall_contended_max = absl::Milliseconds(200);
  StartGateway(options);
  Bytes part = HeaderOf(2 * kMiB);
  part.resize(part.size() + kMiB + kMiB / 2);
  RawClient slow(tcp_address());
  slow.Session();
  slow.SendBytes(part);
  EXPECT_TRUE(
      Eventually([&] { return gateway_->usage().received_bytes == 2 * kMiB; }));
  auto honest = OpenOn(tcp_address());
  const TestChunk large = MakeChunk(ns_, model_, 9, 4096);
  ASSERT_GT(large.shape.layer_bytes(), size_t{64} << 10);
  RawClient waiter(tcp_address());
  waiter.Session();
  waiter.SendBytes(part);
  const absl::Status slow_status = slow.StatusOf(slow.Session().infoRequest());
  EXPECT_THAT(slow_status.message(), HasSubstr("wait for its room"));
  EXPECT_TRUE(honest->Store(large.spec, large.view()).ok());
}

TEST_F(LimitsTest, AMessageDoesNotWaitForRoomForEver) {
  Gateway::Options options;
  options.message_bytes_max = 2 * kMiB;
  options.received_bytes_max = 3 * kMiB;
  options.message_stall_max = absl::Minutes(5);
  options.message_stall_contended_max = absl::Minutes(5);
  options.message_room_wait_max = absl::Milliseconds(200);
  StartGateway(options);
  RawClient first(tcp_address());
  first.Session();
  first.SendBytes(HeaderOf(2 * kMiB));
  EXPECT_TRUE(
      Eventually([&] { return gateway_->usage().received_bytes == 2 * kMiB; }));
  RawClient waiter(tcp_address());
  waiter.Session();
  waiter.SendBytes(HeaderOf(2 * kMiB));
  const absl::Status status = waiter.StatusOf(waiter.Session().infoRequest());
  EXPECT_THAT(status.message(), HasSubstr("no room for a message of 2097152"));
  EXPECT_EQ(gateway_->usage().received_bytes, 2 * kMiB);
}

TEST_F(LimitsTest, SmallMessagesShareABudgetToo) {
  Gateway::Options options;
  options.small_received_bytes_max = kMiB / 4;
  options.message_room_wait_max = absl::Minutes(5);
  StartGateway(options);
  RawClient client(unix_address());
  auto knowledge = client.Open(ns_, model_);
  auto never = kj::newPromiseAndFulfiller<wire::SharedMemory::Client>();
  wire::SharedMemory::Client memory(kj::mv(never.promise));
  std::vector<capnp::RemotePromise<wire::Knowledge::RetrieveResults>> pending;
  for (int i = 0; i < 40; ++i) {
    pending.push_back(RetrieveInto(knowledge, memory).send());
  }
  EXPECT_TRUE(Eventually([&] {
    client.Flush();
    return gateway_->usage().small_received_bytes > kMiB / 8;
  }));
  for (int i = 0; i < 20; ++i) client.Flush();
  EXPECT_LE(gateway_->usage().small_received_bytes, kMiB / 4);
  EXPECT_TRUE(MakeClient(tcp_address())->Ping().ok());
}

TEST_F(LimitsTest, ACapabilityThatNeverComesIsNotAwaitedForLong) {
  Gateway::Options options;
  options.region_wait_max = absl::Milliseconds(100);
  StartGateway(options);
  RawClient client(unix_address());
  auto knowledge = client.Open(ns_, model_);
  auto never = kj::newPromiseAndFulfiller<wire::SharedMemory::Client>();
  const absl::Status status =
      client.StatusOf(RetrieveInto(knowledge, kj::mv(never.promise)));
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_THAT(status.message(), HasSubstr("shared memory"));
}

TEST_F(LimitsTest, SharedMemoryOverTcpIsRefusedAtOnce) {
  RawClient client(tcp_address());
  auto knowledge = client.Open(ns_, model_);
  auto never = kj::newPromiseAndFulfiller<wire::SharedMemory::Client>();
  wire::SharedMemory::Client memory(kj::mv(never.promise));
  absl::Status status = client.StatusOf(RetrieveInto(knowledge, memory));
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  auto store = knowledge.storeRequest();
  auto body = store.initRequest();
  body.setKey(ToWire(chunk_.ref.key));
  FillList(chunk_.spec.identity.tokens, body.initTokens(5));
  FillList(chunk_.spec.positions, body.initPositions(5));
  body.setMemory(memory);
  store.setDeadlineMs(60'000);
  status = client.StatusOf(kj::mv(store));
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
}

TEST_F(LimitsTest, AMessageThatComesByTheByteEndsItsConnection) {
  Gateway::Options options;
  options.message_stall_max = absl::Milliseconds(100);
  StartGateway(options);
  RawClient client(tcp_address());
  client.Session();
  client.SendBytes({0, 0, 0});
  EXPECT_TRUE(Eventually([&] { return gateway_->usage().connections == 0; }));
}

TEST_F(LimitsTest, CallsWaitForMemoryUntilTheirDeadline) {
  Gateway::Options options;
  options.call_memory_max = 1 << 20;
  StartGateway(options);
  node_.BeSilent();
  RawClient first(tcp_address());
  auto knowledge = first.Open(ns_, model_);
  auto pending = LookupOf(knowledge, chunk_.ref, 2000, 20'000).send();
  first.Flush();
  EXPECT_TRUE(Eventually([&] { return gateway_->usage().node_calls == 1; }));
  RawClient second(tcp_address());
  auto other = second.Open(ns_, model_);
  const absl::Status late =
      second.StatusOf(LookupOf(other, chunk_.ref, 2000, 100));
  EXPECT_TRUE(absl::IsDeadlineExceeded(late)) << late;
  EXPECT_THAT(late.message(), HasSubstr("memory"));
  EXPECT_EQ(gateway_->usage().node_calls, 1u);
  node_.Speak();
  EXPECT_TRUE(second.StatusOf(LookupOf(other, chunk_.ref, 2000, 20'000)).ok());
  EXPECT_TRUE(Eventually([&] { return gateway_->usage().call_memory == 0; }));
}

TEST_F(LimitsTest, CallsOfOneSessionLeaveMemoryToOthers) {
  Gateway::Options options;
  options.call_memory_max = 4 * kMiB;
  options.chunks_per_call_max = 1600;
  options.positions_per_call_max = 1000;
  StartGateway(options);
  node_.BeSilent();
  RawClient greedy(tcp_address());
  auto knowledge = greedy.Open(ns_, model_);
  std::vector<capnp::RemotePromise<wire::Knowledge::LookupResults>> pending;
  for (int i = 0; i < 6; ++i) {
    pending.push_back(LookupOf(knowledge, chunk_.ref, 1600, 60'000).send());
  }
  EXPECT_TRUE(Eventually([&] {
    greedy.Flush();
    return gateway_->usage().node_calls == 1;
  }));
  for (int i = 0; i < 20; ++i) greedy.Flush();
  EXPECT_LE(gateway_->usage().call_memory, kMiB);
  RawClient other(tcp_address());
  auto others = other.Open(ns_, model_);
  auto large = LookupOf(others, chunk_.ref, 1600, 60'000).send();
  EXPECT_TRUE(Eventually([&] {
    other.Flush();
    return gateway_->usage().node_calls == 2;
  }));
}

TEST_F(LimitsTest, ASmallCallDoesNotWaitForMemory) {
  Gateway::Options options;
  options.call_memory_max = 1 << 20;
  StartGateway(options);
  node_.BeSilent();
  std::vector<std::unique_ptr<RawClient>> clients;
  std::vector<capnp::RemotePromise<wire::Knowledge::LookupResults>> pending;
  for (int i = 0; i < 2; ++i) {
    clients.push_back(std::make_unique<RawClient>(tcp_address()));
    auto knowledge = clients.back()->Open(ns_, model_);
    pending.push_back(LookupOf(knowledge, chunk_.ref, 2000, 60'000).send());
    for (int j = 0; j < 10; ++j) clients.back()->Flush();
  }
  EXPECT_TRUE(Eventually([&] { return gateway_->usage().node_calls == 1; }));
  RawClient client(tcp_address());
  auto knowledge = client.Open(ns_, model_);
  auto small = LookupOf(knowledge, chunk_.ref, 1, 60'000).send();
  EXPECT_TRUE(Eventually([&] {
    client.Flush();
    return gateway_->usage().node_calls == 2;
  }));
}

TEST_F(LimitsTest, PositionsAreCountedBeforeTheyAreCopied) {
  Gateway::Options options;
  options.positions_per_call_max = 1000;
  StartGateway(options);
  RawClient client(unix_address());
  auto knowledge = client.Open(ns_, model_);
  auto memory_request = client.Session().openMemoryRequest();
  memory_request.setBytes(1 << 20);
  wire::SharedMemory::Client memory =
      client.Send(kj::mv(memory_request))->getMemory();
  auto retrieve = knowledge.retrieveRequest();
  auto chunks = retrieve.initRequest().initChunks(3);
  for (unsigned i = 0; i < 3; ++i) {
    ToWire(chunk_.ref, chunks[i].initRef());
    chunks[i].initPositions(400);
  }
  retrieve.getRequest().getDestination().setMemory(memory);
  const absl::Status status = client.StatusOf(kj::mv(retrieve));
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(status.message(), HasSubstr("1200 positions in one call"));
}

// A client that reads nothing once it is deaf.
class DeafStream final : public capnp::MessageStream {
 public:
  explicit DeafStream(kj::AsyncIoStream& stream) : inner_(stream) {}
  void BeDeaf() { deaf_ = true; }
  kj::Promise<kj::Maybe<capnp::MessageReaderAndFds>> tryReadMessage(
      kj::ArrayPtr<kj::AutoCloseFd> fds, capnp::ReaderOptions options,
      kj::ArrayPtr<capnp::word> scratch) override {
    if (deaf_) return kj::NEVER_DONE;
    return inner_.tryReadMessage(fds, options, scratch);
  }
  kj::Promise<void> writeMessage(
      kj::ArrayPtr<const int> fds,
      kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) override {
    return inner_.writeMessage(fds, segments);
  }
  kj::Promise<void> writeMessages(
      kj::ArrayPtr<kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>>>
          messages) override {
    return inner_.writeMessages(messages);
  }
  kj::Maybe<int> getSendBufferSize() override {
    return inner_.getSendBufferSize();
  }
  kj::Promise<void> end() override { return inner_.end(); }

 private:
  capnp::AsyncIoMessageStream inner_;
  bool deaf_ = false;
};

kj::Own<capnp::MessageStream> MakeDeaf(kj::AsyncIoStream& stream) {
  return kj::heap<DeafStream>(stream);
}

TEST_F(LimitsTest, AClientThatDoesNotReadItsAnswersIsHungUpOn) {
  Gateway::Options options;
  options.queued_bytes_per_client_max = 2 * kMiB;
  StartGateway(options);
  RawClient client(tcp_address(), MakeDeaf);
  auto knowledge = client.Open(ns_, model_);
  node_.BeSilent();
  std::vector<capnp::RemotePromise<wire::Knowledge::LookupResults>> pending;
  constexpr unsigned kCalls = 24;
  for (unsigned i = 0; i < kCalls; ++i) {
    pending.push_back(LookupOf(knowledge, chunk_.ref, 10'000, 60'000).send());
  }
  client.stream<DeafStream>().BeDeaf();
  const std::unique_ptr<Client> honest = MakeClient(tcp_address());
  while (gateway_->usage().node_calls < kCalls &&
         gateway_->usage().call_memory < 30 * kMiB) {
    client.Flush();
  }
  node_.Speak();
  EXPECT_TRUE(Eventually([&] {
    client.Flush();
    return gateway_->usage().connections == 1;
  }));
  EXPECT_TRUE(honest->Ping().ok());
}

TEST_F(LimitsTest, CallsAreNotReadWhileAnswersAreUnread) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "Cap'n Proto destroys the client's queue by recursion, ten "
                  "functions deep for each of 30,000 messages. ThreadSanitizer "
                  "has room for 65,536";
#endif
  StartGateway({});
  RawClient client(tcp_address(), MakeDeaf);
  client.Session();
  client.stream<DeafStream>().BeDeaf();
  constexpr int kCalls = 30'000;  // their answers take 250 MB of memory
  std::vector<capnp::RemotePromise<wire::Session::InfoResults>> pending;
  for (int i = 0; i < kCalls; ++i) {
    pending.push_back(client.Session().infoRequest().send());
  }
  EXPECT_TRUE(Eventually([&] {
    client.Flush();
    return gateway_->usage().queued_bytes >= 4 * kMiB;
  }));
  for (int i = 0; i < 100; ++i) {
    client.Flush();
    ASSERT_LT(gateway_->usage().queued_bytes, 32u * kMiB);
  }
  EXPECT_TRUE(MakeClient(tcp_address())->Ping().ok());
}

// Receives the first layer and never answers.
class StuckSink final : public wire::LayerSink::Server {
 public:
  kj::Promise<void> data(DataContext) override { return kj::NEVER_DONE; }
};

TEST_F(LimitsTest, AnEngineThatTakesNothingLosesItsScratchWhenOthersWait) {
  constexpr int kTokens = 4096;
  const size_t bytes = ShapeOf(model_, kTokens).bytes();
  Gateway::Options options;
  options.scratch_bytes_max = 2 * bytes;
  options.window_bytes = bytes;
  options.engine_stall_max = absl::Minutes(5);
  options.engine_stall_contended_max = absl::Milliseconds(200);
  StartGateway(options);
  auto honest = OpenOn(tcp_address());
  std::vector<TestChunk> stored;
  for (int i = 0; i < 8; ++i) {
    stored.push_back(MakeChunk(ns_, model_, 5000 * i, kTokens));
    ASSERT_TRUE(honest->Store(stored[i].spec, stored[i].view()).ok());
  }
  RawClient client(tcp_address());
  auto knowledge = client.Open(ns_, model_);
  auto request = knowledge.retrieveRequest();
  auto chunks = request.initRequest().initChunks(8);
  for (unsigned i = 0; i < 8; ++i) {
    ToWire(stored[i].ref, chunks[i].initRef());
    FillList(stored[i].spec.positions, chunks[i].initPositions(kTokens));
  }
  request.setSink(kj::heap<StuckSink>());
  request.setDeadlineMs(60'000);
  auto stuck = request.send();
  for (int i = 0; i < 200; ++i) client.Flush();
  EXPECT_EQ(gateway_->usage().scratch_bytes, 2 * bytes);
  Landing landing = MakeLanding(stored[0].shape,
                                KvStrides::TokenMajor(stored[0].shape), bytes);
  const auto outcomes = honest->Retrieve(
      {.chunks = {{stored[0].ref, stored[0].spec.positions, landing.view}}},
      nullptr, absl::Seconds(20));
  ASSERT_TRUE(outcomes.ok()) << outcomes.status();
  EXPECT_EQ((*outcomes)[0].kind, OutcomeKind::kHit);
}

// Takes a layer after some time.
class SlowSink final : public wire::LayerSink::Server {
 public:
  explicit SlowSink(kj::Timer& timer) : timer_(timer) {}
  kj::Promise<void> data(DataContext) override {
    return timer_.afterDelay(400 * kj::MILLISECONDS);
  }
  kj::Promise<void> done(DoneContext) override { return kj::READY_NOW; }

 private:
  kj::Timer& timer_;
};

TEST_F(LimitsTest, AnEngineDoesNotEndItsOwnRetrieves) {
  constexpr int kTokens = 4096;
  const size_t bytes = ShapeOf(model_, kTokens).bytes();
  Gateway::Options options;
  options.scratch_bytes_max = bytes;
  options.window_bytes = bytes;
  options.engine_stall_max = absl::Minutes(5);
  options.engine_stall_contended_max = absl::Milliseconds(100);
  StartGateway(options);
  const TestChunk stored = MakeChunk(ns_, model_, 1, kTokens);
  ASSERT_TRUE(OpenOn(tcp_address())->Store(stored.spec, stored.view()).ok());
  RawClient client(tcp_address());
  auto knowledge = client.Open(ns_, model_);
  std::vector<capnp::RemotePromise<wire::Knowledge::RetrieveResults>> pending;
  for (int i = 0; i < 2; ++i) {
    auto request = knowledge.retrieveRequest();
    auto chunk = request.initRequest().initChunks(1)[0];
    ToWire(stored.ref, chunk.initRef());
    FillList(stored.spec.positions, chunk.initPositions(kTokens));
    request.setSink(kj::heap<SlowSink>(client.loop().io().getTimer()));
    request.setDeadlineMs(60'000);
    pending.push_back(request.send());
  }
  for (auto& answer : pending) {
    const auto got = client.loop().Wait(
        kj::Promise<capnp::Response<wire::Knowledge::RetrieveResults>>(
            kj::mv(answer)),
        absl::Seconds(20));
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_TRUE(FromWire(got->getStatus()).ok()) << FromWire(got->getStatus());
  }
}

TEST_F(LimitsTest, AConnectionHasOneSessionAtATime) {
  RawClient client(tcp_address());
  client.Session();
  auto again = client.kdn().helloRequest();
  RawClient::FillHello(again);
  const absl::Status status = client.StatusOf(kj::mv(again));
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_EQ(gateway_->usage().sessions, 1u);
  client.EndSession();
  client.Flush();
  EXPECT_TRUE(Eventually([&] {
    client.Flush();
    return gateway_->usage().sessions == 0;
  }));
  EXPECT_TRUE(client.StatusOf(client.Session().infoRequest()).ok());
}

TEST_F(LimitsTest, SilentConnectionsMakeRoomForAClientThatSpeaks) {
  std::vector<int> silent;
  for (int i = 0; i < 300; ++i) silent.push_back(Dial());
  for (int i = 0; i < 300; ++i) {
    silent.push_back(DialUnix(directory_ + "/engine.sock"));
  }
  for (const std::string& address : {tcp_address(), unix_address()}) {
    auto client = Client::Connect(address);
    EXPECT_TRUE(client.ok()) << client.status();
  }
  EXPECT_LE(gateway_->usage().connections, 256u + 64u);
  CloseAll(silent);
}

TEST_F(LimitsTest, SessionsThatHaveOpenedNothingMakeRoom) {
  Gateway::Options options;
  options.sessions_max = 2;
  StartGateway(options);
  auto idle = MakeClient(unix_address());
  auto busy = MakeClient(unix_address());
  auto knowledge = busy->Open(ns_, model_);
  ASSERT_TRUE(knowledge.ok()) << knowledge.status();
  auto third = Client::Connect(unix_address());
  EXPECT_TRUE(third.ok()) << third.status();
  EXPECT_FALSE(idle->Ping().ok());
  EXPECT_TRUE(busy->Ping().ok());
}

TEST_F(LimitsTest, OneAddressDoesNotTakeThePlacesOfTheUnixSocket) {
  Gateway::Options options;
  options.sessions_max = 20;
  StartGateway(options);
  std::vector<std::unique_ptr<Client>> clients;
  std::vector<std::unique_ptr<Knowledge>> used;
  EXPECT_EQ(OpenUntilRefused(tcp_address(), &clients, &used), 10);
  EXPECT_EQ(OpenUntilRefused(unix_address(), &clients, &used), 10);
  for (const auto& client : clients) EXPECT_TRUE(client->Ping().ok());
}

TEST_F(LimitsTest, ClientsOfTheUnixSocketDoNotTakeThePlacesOfTcp) {
  Gateway::Options options;
  options.sessions_max = 20;
  StartGateway(options);
  std::vector<std::unique_ptr<Client>> clients;
  std::vector<std::unique_ptr<Knowledge>> used;
  EXPECT_EQ(OpenUntilRefused(unix_address(), &clients, &used), 15);
  EXPECT_EQ(OpenUntilRefused(tcp_address(), &clients, &used), 5);
  for (const auto& client : clients) EXPECT_TRUE(client->Ping().ok());
}

TEST_F(LimitsTest, VisitorsOfTheDescriptorDeskDoNotKeepOthersOut) {
  RawClient client(unix_address());
  auto request = client.Session().openMemoryRequest();
  request.setBytes(4096);
  wire::SharedMemory::Client memory = client.Send(kj::mv(request))->getMemory();
  std::vector<int> visitors;
  for (int i = 0; i < 400; ++i) {
    visitors.push_back(DialUnix(directory_ + "/engine.sock.fd"));
  }
  auto ticket = client.Send(memory.ticketRequest());
  ASSERT_TRUE(ticket.ok()) << ticket.status();
  const int fd = DialUnix(directory_ + "/engine.sock.fd");
  const auto bytes = ticket->getTicket();
  SendAll(fd, Bytes(bytes.begin(), bytes.end()));
  char byte = 1;
  EXPECT_EQ(recv(fd, &byte, 1, 0), 1);
  close(fd);
  EXPECT_TRUE(Client::Connect(unix_address()).ok());
  CloseAll(visitors);
}

}  // namespace
}  // namespace kdn::rpc
