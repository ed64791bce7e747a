// Sends bytes that no correct peer sends to a bulk server and to a gateway. The
// servers may hang up. They must not crash, stay busy, or fail other requests.
#include <capnp/any.h>
#include <capnp/schema.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <random>

#include "codec/format/fixed_fields.h"
#include "rpc/bulk/frame.h"
#include "rpc/listener.h"
#include "rpc/wire.h"
#include "tests/rpc/bulk/fixture.h"

namespace kdn::rpc {
namespace {

using Bytes = std::vector<uint8_t>;
constexpr int kQuietMs = 5;
constexpr int kRounds = 300;

void Append(capnp::MessageBuilder& message, Bytes& out) {
  const auto frame = FrameOf(message);
  out.insert(out.end(), frame.begin(), frame.end());
}

Bytes HelloBytes(const char* from = "a", const char* to = "b") {
  capnp::MallocMessageBuilder message;
  auto hello = message.initRoot<peer::Hello>();
  ToWire(IntroduceByNameOnly(NodeId(from))(NodeId(to)),
         hello.initIntroduction());
  hello.setTo(to);
  Bytes out;
  Append(message, out);
  return out;
}

// The item of the first chunk, and the object's prefix.
Bytes HitBytes(const std::vector<std::byte>& object, size_t prefix_bytes) {
  capnp::MallocMessageBuilder message;
  auto item = message.initRoot<peer::FetchItem>();
  item.initStatus();
  item.initLevels(3);  // lossless
  item.setObjectBytes(object.size());
  item.setPrefixBytes(static_cast<uint32_t>(prefix_bytes));
  item.setStreamBytes(object.size() - prefix_bytes);
  item.setEndsGroup(true);
  Bytes out;
  Append(message, out);
  for (size_t i = 0; i < prefix_bytes; ++i) {
    out.push_back(static_cast<uint8_t>(object[i]));
  }
  return out;
}

Bytes PushBytes(const ChunkRef& ref, uint64_t object_bytes) {
  capnp::MallocMessageBuilder message;
  auto request = message.initRoot<peer::Request>();
  request.setDeadlineMs(5000);
  auto push = request.initPush();
  push.getChunk().setKey(ToWire(ref.key));
  push.setObjectBytes(object_bytes);
  Bytes out;
  Append(message, out);
  return out;
}

Bytes FetchBytes(const Namespace& ns, const std::vector<TestChunk>& chunks,
                 uint16_t newest_format = codec::kFormatVersion) {
  capnp::MallocMessageBuilder message;
  auto request = message.initRoot<peer::Request>();
  request.setDeadlineMs(1000);
  auto fetch = request.initFetch();
  fetch.setNamespace(ns.name());
  auto list = fetch.initChunks(static_cast<unsigned>(chunks.size()));
  for (unsigned i = 0; i < chunks.size(); ++i) {
    list[i].setKey(ToWire(chunks[i].ref.key));
  }
  fetch.setLayerEnd(3);
  fetch.setHeadEnd(2);
  fetch.setAccept(LevelSet::All().bits());
  fetch.setNewestFormat(newest_format);
  Bytes out;
  Append(message, out);
  return out;
}

// A request of a kind that no node knows yet.
Bytes FutureBytes() {
  capnp::MallocMessageBuilder message;
  auto request = message.initRoot<peer::Request>();
  request.setDeadlineMs(1000);
  const auto proto =
      capnp::Schema::from<peer::Request>().getProto().getStruct();
  auto data = capnp::AnyStruct::Builder(kj::mv(request)).getDataSection();
  const uint16_t kind = 77;
  std::memcpy(data.begin() + 2 * proto.getDiscriminantOffset(), &kind, 2);
  Bytes out;
  Append(message, out);
  return out;
}

// The frame that begins at `at`; null when it is not whole. Moves `at` behind
// the frame.
std::unique_ptr<Frame> NextFrame(const Bytes& bytes, size_t& at) {
  uint32_t length = 0;
  if (at + sizeof(length) > bytes.size()) return nullptr;
  std::memcpy(&length, bytes.data() + at, sizeof(length));
  at += sizeof(length);
  if (at + length > bytes.size()) return nullptr;
  auto words = kj::heapArray<capnp::word>(length / sizeof(capnp::word));
  std::memcpy(words.begin(), bytes.data() + at, length);
  at += length;
  return std::make_unique<Frame>(kj::mv(words));
}

// Flips bits, cuts off the end, repeats the beginning, or overwrites bytes with
// noise.
Bytes Mutate(Bytes bytes, std::mt19937_64& random) {
  const size_t at = random() % bytes.size();
  switch (random() % 4) {
    case 0:
      for (int i = 0; i < 4; ++i) {
        bytes[random() % bytes.size()] ^=
            static_cast<uint8_t>(1u << (random() % 8));
      }
      break;
    case 1:
      bytes.resize(at);
      break;
    case 2:
      bytes.insert(bytes.end(), bytes.begin(),
                   bytes.begin() + static_cast<int64_t>(at));
      break;
    case 3:
      for (int i = 0; i < 16; ++i) {
        bytes[(at + static_cast<size_t>(i)) % bytes.size()] =
            static_cast<uint8_t>(random());
      }
      break;
  }
  return bytes;
}

void Attack(uint16_t port, const Bytes& bytes) {
  const int fd = ConnectLocal(port);
  ASSERT_GE(fd, 0);
  Exchange(fd, bytes, kQuietMs);
  close(fd);
}

class HostileBulkTest : public BulkFixture {
 protected:
  // Opens five connections, each of which announces a push of 600 KiB and sends
  // none of its bytes.
  std::vector<int> AnnouncePushes() {
    Bytes bytes = HelloBytes();
    const Bytes push = PushBytes(chunks_[0].ref, 600 << 10);
    bytes.insert(bytes.end(), push.begin(), push.end());
    std::vector<int> open;
    for (int i = 0; i < 5; ++i) {
      open.push_back(ConnectLocal(server_->port()));
      EXPECT_EQ(send(open.back(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
                static_cast<ssize_t>(bytes.size()));
    }
    return open;
  }
  // Fetches the first chunk from a node that sends `answer`, whatever it is
  // asked.
  absl::Status FetchFrom(const Bytes& answer) {
    const int listening = *ListenTcp("127.0.0.1", 0);
    port_ = PortOf(listening);
    std::thread node([&] {
      pollfd wait{listening, POLLIN, 0};
      poll(&wait, 1, -1);
      const int fd = accept(listening, nullptr, nullptr);
      Exchange(fd, answer, 200);
      close(fd);
    });
    const absl::Status status = Fetch(FetchOf({chunks_[0]}))->status;
    node.join();
    close(listening);
    return status;
  }

  // Sends `bytes` on a connection of its own, and returns all that the server
  // answers.
  Bytes AnswersTo(const Bytes& bytes) {
    const int fd = ConnectLocal(server_->port());
    EXPECT_EQ(send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
    shutdown(fd, SHUT_WR);  // the server hangs up once it has answered
    Bytes answers = Exchange(fd, {}, /*quiet_ms=*/20000);
    close(fd);
    return answers;
  }
};

TEST_F(HostileBulkTest, AnObjectOfANewerFormatIsUnimplementedAndNoDamage) {
  peer_.Hold(chunks_[0], LevelSet::Of(Level::kLossless));
  const auto held = peer_.object(chunks_[0].ref.key)->bytes();
  std::vector<std::byte> object(held.begin(), held.end());
  const size_t prefix_bytes =
      codec::ObjectIndex::Parse(object, object.size())->prefix_bytes();
  object[6] = std::byte{codec::kFormatVersion + 1};
  const auto answer = [&] {
    Bytes bytes = HelloBytes("b", "a");
    const Bytes hit = HitBytes(object, prefix_bytes);
    bytes.insert(bytes.end(), hit.begin(), hit.end());
    return bytes;
  };
  const absl::Status damaged = FetchFrom(answer());
  EXPECT_TRUE(absl::IsDataLoss(damaged)) << "its CRC is wrong: " << damaged;
  const uint32_t crc =
      codec::PrefixCrc(absl::MakeConstSpan(object).first(prefix_bytes));
  std::memcpy(object.data() + codec::kCrcOffset, &crc, sizeof(crc));
  const absl::Status newer = FetchFrom(answer());
  EXPECT_TRUE(absl::IsUnimplemented(newer)) << newer;
}

TEST_F(HostileBulkTest, MutatedRequestsNeverHurtOthers) {
  HoldAll();
  Bytes good = HelloBytes();
  for (const Bytes& more :
       {FetchBytes(ns_, chunks_), PushBytes(chunks_[0].ref, 4096)}) {
    good.insert(good.end(), more.begin(), more.end());
  }
  std::mt19937_64 random(kSeed);
  for (int i = 0; i < kRounds; ++i) {
    SCOPED_TRACE(absl::StrCat("seed ", kSeed, " round ", i));
    Attack(server_->port(), Mutate(good, random));
  }
  EXPECT_TRUE(Fetch(FetchOf(chunks_))->status.ok());
  EXPECT_TRUE(Eventually([&] { return server_->counters().connections == 1; }));
}

TEST_F(HostileBulkTest, ImpossibleLengthsAreRefusedBeforeMemoryIsReserved) {
  Attack(server_->port(), {0xff, 0xff, 0xff, 0xff, 1, 2, 3});
  Attack(server_->port(), {0, 0, 0, 0});
  Attack(server_->port(), {9, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  EXPECT_TRUE(
      Eventually([&] { return server_meters_->Get("peer_refused") >= 3; }));
  Bytes push = HelloBytes();
  const Bytes huge = PushBytes(chunks_[0].ref, UINT64_MAX);
  push.insert(push.end(), huge.begin(), huge.end());
  Attack(server_->port(), push);
  EXPECT_EQ(peer_.arena_used(), 0u);
}

TEST_F(HostileBulkTest,
       RequestsOfANewerNodeAreUnimplementedAndTheConnectionStays) {
  capnp::MallocMessageBuilder message;
  auto request = message.initRoot<peer::Request>();
  auto push = request.initPush();
  push.getChunk().setKey(ToWire(chunks_[0].ref.key));
  push.setObjectBytes(4096);
  push.setDurability(9);
  Bytes durability;
  Append(message, durability);

  Bytes bytes = HelloBytes();
  for (const Bytes& more :
       {FutureBytes(), durability, FetchBytes(ns_, {chunks_[0]})}) {
    bytes.insert(bytes.end(), more.begin(), more.end());
  }
  const Bytes answers = AnswersTo(bytes);
  size_t at = 0;
  std::vector<absl::Status> statuses;
  ASSERT_NE(NextFrame(answers, at), nullptr) << "no hello";
  while (const auto frame = NextFrame(answers, at)) {
    statuses.push_back(FromWire(frame->As<peer::Refusal>().getStatus()));
  }
  ASSERT_EQ(statuses.size(), 3u);
  EXPECT_TRUE(absl::IsUnimplemented(statuses[0])) << statuses[0];
  EXPECT_TRUE(absl::IsUnimplemented(statuses[1])) << statuses[1];
  EXPECT_TRUE(absl::IsNotFound(statuses[2]))
      << "the connection lives: " << statuses[2];
  EXPECT_EQ(server_meters_->Get("peer_refused"), 0u);
}

TEST_F(HostileBulkTest, ANodeThatReadsOlderFormatsOnlyGetsNoNewerObject) {
  peer_.Hold(chunks_[0], LevelSet::Of(Level::kLossless));
  Bytes bytes = HelloBytes();
  const Bytes fetch =
      FetchBytes(ns_, {chunks_[0]}, codec::kFormatVersionApart - 1);
  bytes.insert(bytes.end(), fetch.begin(), fetch.end());
  const Bytes answers = AnswersTo(bytes);
  size_t at = 0;
  ASSERT_NE(NextFrame(answers, at), nullptr) << "no hello";
  const auto item = NextFrame(answers, at);
  ASSERT_NE(item, nullptr);
  const absl::Status status = FromWire(item->As<peer::FetchItem>().getStatus());
  EXPECT_TRUE(absl::IsUnimplemented(status)) << status;
  EXPECT_EQ(at, answers.size()) << "nothing follows";
}

TEST_F(HostileBulkTest, AStalledPushEndsItsConnectionAndLeavesNothing) {
  BulkServer::Options options{.self = NodeId("b")};
  options.stall_timeout = absl::Milliseconds(100);
  StartServer(options);
  Bytes bytes = HelloBytes();
  const Bytes push = PushBytes(chunks_[0].ref, 1 << 20);
  bytes.insert(bytes.end(), push.begin(), push.end());
  const int fd = ConnectLocal(server_->port());
  EXPECT_FALSE(Exchange(fd, bytes, /*quiet_ms=*/50).empty());
  EXPECT_TRUE(Eventually([&] {
    return server_->counters().connections == 0 && peer_.arena_used() == 0;
  }));
  EXPECT_EQ(peer_.commits(), 0);
  close(fd);
}

TEST_F(HostileBulkTest, AConnectionWithoutHelloIsClosed) {
  BulkServer::Options options{.self = NodeId("b")};
  options.stall_timeout = absl::Milliseconds(50);
  StartServer(options);
  const int fd = ConnectLocal(server_->port());
  uint8_t byte;
  EXPECT_EQ(recv(fd, &byte, 1, 0), 0);
  close(fd);
}

TEST_F(HostileBulkTest, AHelloIsShort) {
  Bytes bytes = {0, 0, 2, 0};  // 128 KiB
  bytes.resize(bytes.size() + (128 << 10));
  Attack(server_->port(), bytes);
  EXPECT_TRUE(
      Eventually([&] { return server_meters_->Get("peer_refused") == 1; }));
}

TEST_F(HostileBulkTest, ALayerThatNoModelHasEndsTheConnection) {
  capnp::MallocMessageBuilder message;
  auto request = message.initRoot<peer::Request>();
  request.setDeadlineMs(1000);
  auto fetch = request.initFetch();
  fetch.setNamespace(ns_.name());
  fetch.setLayerEnd(UINT32_MAX);
  fetch.setHeadEnd(1);
  Bytes bytes = HelloBytes();
  Append(message, bytes);
  const int fd = ConnectLocal(server_->port());
  Exchange(fd, bytes, /*quiet_ms=*/20000);
  EXPECT_TRUE(
      Eventually([&] { return server_meters_->Get("peer_refused") == 1; }));
  EXPECT_EQ(server_->counters().connections, 0u);
  close(fd);
}

TEST_F(HostileBulkTest, ConnectionsThatDoNothingMakeRoomForAPeer) {
  HoldAll();
  std::vector<int> open;
  const Bytes hello = HelloBytes("x", "b");
  for (int i = 0; i < 400; ++i) {
    open.push_back(ConnectLocal(server_->port()));  // silent
    open.push_back(ConnectLocal(server_->port()));
    EXPECT_EQ(send(open.back(), hello.data(), hello.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(hello.size()));
  }
  EXPECT_TRUE(Fetch(FetchOf(chunks_))->status.ok());
  EXPECT_TRUE(Eventually(
      [&] { return server_->counters().connections <= 256u + 32u + 4u; }));
  for (const int fd : open) close(fd);
}

TEST_F(HostileBulkTest, PushesThatSendNothingTakeLittleMemoryTogether) {
  BulkServer::Options options{.self = NodeId("b")};
  options.push_unreceived_max = 1 << 20;
  options.push_begin_timeout = absl::Milliseconds(300);
  StartServer(options);
  const std::vector<int> open = AnnouncePushes();
  EXPECT_TRUE(Eventually([&] { return peer_.arena_used() > 0; }));
  EXPECT_LE(peer_.arena_used(), 1u << 20);
  peer_.Hold(chunks_[1], LevelSet::Of(Level::kLossless));
  const auto pushed = Push(chunks_[2], peer_.object(chunks_[1].ref.key));
  EXPECT_FALSE(absl::IsDeadlineExceeded(pushed.status())) << pushed.status();
  for (const int fd : open) close(fd);
}

TEST_F(HostileBulkTest, PushesOfAHungPeerLeaveRoomToOtherPeers) {
  BulkServer::Options options{.self = NodeId("b")};
  options.push_unreceived_max = 1 << 20;
  options.push_begin_timeout = absl::Minutes(5);
  options.stall_timeout = absl::Minutes(5);
  StartServer(options);
  const std::vector<int> open = AnnouncePushes();
  EXPECT_TRUE(Eventually([&] { return server_->counters().connections == 5; }));
  EXPECT_TRUE(Eventually([&] { return peer_.arena_used() > 0; }));
  StartTransport({.self = NodeId("c"), .resolve = {}});
  peer_.Hold(chunks_[1], LevelSet::Of(Level::kLossless));
  // The other pushes give up after 5 s.
  const auto pushed = Push(chunks_[2], peer_.object(chunks_[1].ref.key),
                           absl::InfinitePast(), absl::Seconds(4));
  EXPECT_FALSE(absl::IsDeadlineExceeded(pushed.status())) << pushed.status();
  for (const int fd : open) close(fd);
}

class HostileRpcTest : public GatewayFixture {};

// Records the bytes of a real client, for the test to mutate.
Bytes RecordHello() {
  const int listening = *ListenTcp("127.0.0.1", 0);
  Bytes recorded;
  std::thread engine([&] {
    (void)Client::Connect(absl::StrCat("127.0.0.1:", PortOf(listening)),
                          {.name = "fuzz", .timeout = absl::Milliseconds(300)});
  });
  sockaddr_storage from;
  socklen_t length = sizeof(from);
  pollfd wait{listening, POLLIN, 0};
  poll(&wait, 1, -1);
  const int fd = accept(listening, reinterpret_cast<sockaddr*>(&from), &length);
  recorded = Exchange(fd, {}, 100);
  engine.join();
  close(fd);
  close(listening);
  return recorded;
}

TEST_F(HostileRpcTest, MutatedBytesNeverHurtOthers) {
  const Bytes good = RecordHello();
  ASSERT_GT(good.size(), 100u);
  auto witness = MakeClient(tcp_address());
  std::mt19937_64 random(kSeed);
  for (int i = 0; i < kRounds; ++i) {
    SCOPED_TRACE(absl::StrCat("seed ", kSeed, " round ", i));
    Attack(gateway_->tcp_port(), Mutate(good, random));
  }
  EXPECT_TRUE(witness->Ping().ok());
  witness = nullptr;
  EXPECT_TRUE(Eventually([&] { return gateway_->usage().sessions == 0; }));
}

}  // namespace
}  // namespace kdn::rpc
