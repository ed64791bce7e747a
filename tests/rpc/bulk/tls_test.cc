// The bulk plane under TLS.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "rpc/bulk/frame.h"
#include "rpc/tls/context.h"
#include "rpc/tls/stream.h"
#include "tests/rpc/bulk/fixture.h"
#include "tests/rpc/tls/test_certificates.h"

namespace kdn::rpc {
namespace {

using ::testing::HasSubstr;

// The nodes "a" and "b" of the fixture, each with its certificate.
class BulkTlsTest : public BulkFixture {
 protected:
  using Credentials = std::shared_ptr<const TlsCredentials>;

  void SetUp() override {
    BulkFixture::SetUp();
    StartServer({.self = NodeId("b"), .tls = certificates_.Load("b")});
    StartTransportAs("a", certificates_.Load("a"));
  }
  void TearDown() override {
    transport_ = nullptr;
    proxy_ = nullptr;
  }
  void StartTransportAs(const char* node, Credentials tls) {
    StartTransport(
        {.self = NodeId(node), .tls = std::move(tls), .resolve = {}});
  }
  // Puts a proxy with a fault between transport and server.
  void Break(FaultyProxy::Fault fault) {
    proxy_ = std::make_unique<FaultyProxy>(server_->port(), fault);
    port_ = proxy_->port();
  }
  // The error of a fetch that brings nothing.
  std::string RefusedFetch() {
    HoldAll();
    auto record = Fetch(FetchOf(chunks_));
    EXPECT_TRUE(absl::IsUnavailable(record->status)) << record->status;
    EXPECT_EQ(record->items[0].layers, 0);
    return std::string(record->status.message());
  }
  bool Refused(uint64_t times) {
    return Eventually([&] {
      return server_meters_->Get("peer_refused") == times &&
             server_->counters().connections == 0;
    });
  }

  TestCertificates certificates_;
  std::unique_ptr<FaultyProxy> proxy_;
};

TEST_F(BulkTlsTest, FetchAndPushBringTheSameBytes) {
  HoldAll();
  auto record = Fetch(FetchOf(chunks_));
  ASSERT_TRUE(record->status.ok()) << record->status;
  for (const RecordingSink::Item& item : record->items) {
    EXPECT_TRUE(item.verified.ok()) << item.verified;
    EXPECT_EQ(item.layers, model_.num_layers);
  }
  const auto receipt = Push(chunks_[0], peer_.object(chunks_[0].ref.key));
  EXPECT_TRUE(receipt.ok()) << receipt.status();
  EXPECT_EQ(peer_.commits(), 1);
}

TEST_F(BulkTlsTest, AnIdleConnectionIsUsedAgain) {
  HoldAll();
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(Fetch(FetchOf(chunks_))->status.ok());
  }
  EXPECT_EQ(server_->counters().connections, 1u);
  StartServer({.self = NodeId("b"), .tls = certificates_.Load("b")});
  EXPECT_TRUE(Fetch(FetchOf(chunks_))->status.ok()) << "the old one has ended";
}

TEST_F(BulkTlsTest, LargeObjectsArriveWhole) {
  ModelSpec large = TestModel();
  large.num_layers = 8;
  large.head_dim = 64;
  large.rope.rotary_dim = 64;
  std::vector<TestChunk> chunks;
  for (int i = 0; i < 3; ++i) {
    chunks.push_back(MakeChunk(ns_, large, 5000 * i, 2048));  // 8 MiB of KV
    peer_.Hold(chunks.back(), LevelSet::Of(Level::kLossless));
  }
  for (const size_t count : {3, 1}) {  // other code reads a single chunk
    delivery::FetchRequest request =
        FetchOf({chunks.begin(), chunks.begin() + count});
    request.slice = WholeOf(large);
    auto record = Fetch(std::move(request));
    ASSERT_TRUE(record->status.ok()) << record->status;
    for (const RecordingSink::Item& item : record->items) {
      EXPECT_TRUE(item.verified.ok()) << item.verified;
    }
  }
  const auto receipt = Push(chunks[0], peer_.object(chunks[0].ref.key));
  EXPECT_TRUE(receipt.ok()) << receipt.status();
}

TEST_F(BulkTlsTest, ACallerWithoutACertificateIsRefused) {
  EventLoop loop;
  const SslContext stranger = EngineContext(certificates_.ca_file()).value();
  std::string error;
  loop.RunAsync([&]() -> kj::Promise<void> {
    return loop.io()
        .getNetwork()
        .parseAddress("127.0.0.1", port_)
        .then([](kj::Own<kj::NetworkAddress> to) {
          auto dialled = to->connect();
          return dialled.attach(kj::mv(to));
        })
        .then([&](kj::Own<kj::AsyncIoStream> stream) {
          return TlsIoStream::Connect(kj::mv(stream), *stranger, "b");
        })
        .then([](kj::Own<TlsIoStream> stream) {
          auto byte = kj::heapArray<char>(1);
          auto reading = stream->read(byte.begin(), 1);
          return reading.attach(kj::mv(byte), kj::mv(stream));
        })
        .catch_([&](kj::Exception&& broken) {
          error = broken.getDescription().cStr();
        });
  });
  EXPECT_THAT(error, HasSubstr("certificate required"));
  EXPECT_TRUE(Refused(1));
}

TEST_F(BulkTlsTest, ACertificateOfAnotherAuthorityIsRefused) {
  const TestCertificates others;
  StartTransportAs("a", others.Load("a"));
  EXPECT_THAT(RefusedFetch(), HasSubstr("an unknown authority has signed it"));
  EXPECT_TRUE(Refused(1));
  // The caller trusts the server, and the server does not trust the caller.
  certificates_.WriteFile("both.pem", certificates_.authority().certificate +
                                          others.authority().certificate);
  TlsFiles files = others.Write("a");
  files.ca = certificates_.directory() + "/both.pem";
  StartTransportAs("a", TlsCredentials::Load(files, absl::Now()).value());
  EXPECT_THAT(RefusedFetch(), HasSubstr("unknown ca"));
  EXPECT_TRUE(Refused(2));
}

TEST_F(BulkTlsTest, ACallerWithTheCertificateOfAnotherNodeIsRefused) {
  StartTransportAs("a", certificates_.Load("c"));
  EXPECT_THAT(RefusedFetch(),
              HasSubstr("the hello is of node a, and the certificate of node "
                        "c"));
  EXPECT_TRUE(Refused(1));
}

TEST_F(BulkTlsTest, AServerWithTheCertificateOfAnotherNodeIsRefused) {
  StartServer({.self = NodeId("b"), .tls = certificates_.Load("c")});
  EXPECT_THAT(RefusedFetch(), HasSubstr("it does not name b"));
}

TEST_F(BulkTlsTest, AnExpiredCertificateIsRefused) {
  const absl::Time now = absl::Now();
  const auto expired = [&](const char* name) {
    const IssuedCertificate issued = certificates_.Issue(
        {name, {}}, {now - absl::Hours(1), now - absl::Minutes(1)});
    return TlsCredentials::Load(certificates_.Write(name, issued),
                                now - absl::Minutes(30))
        .value();
  };
  StartTransportAs("a", expired("a"));
  EXPECT_THAT(RefusedFetch(), HasSubstr("certificate expired"));
  EXPECT_TRUE(Refused(1));
  StartTransportAs("a", certificates_.Load("c"));
  StartServer({.self = NodeId("b"), .tls = expired("b")});
  EXPECT_THAT(RefusedFetch(), HasSubstr("it has expired"));
}

TEST_F(BulkTlsTest, PlaintextBytesReachNoParser) {
  const int fd = ConnectLocal(port_);
  capnp::MallocMessageBuilder message;
  auto hello = message.initRoot<peer::Hello>();
  ToWire(IntroduceByNameOnly(NodeId("a"))(NodeId("b")),
         hello.initIntroduction());
  hello.setTo("b");
  const kj::Array<kj::byte> frame = FrameOf(message);
  const std::vector<uint8_t> answer =
      Exchange(fd, {frame.begin(), frame.end()}, 5000);
  close(fd);
  EXPECT_LE(answer.size(), 7u) << "at most an alert of TLS";
  EXPECT_TRUE(Refused(1));
}

TEST_F(BulkTlsTest, ANodeWithTlsAndOneWithoutRefuseEachOther) {
  StartTransportAs("a", nullptr);
  EXPECT_THAT(RefusedFetch(), HasSubstr("the peer may accept only TLS"));
  EXPECT_TRUE(Refused(1));
  StartServer({.self = NodeId("b")});
  StartTransportAs("a", certificates_.Load("a"));
  EXPECT_THAT(RefusedFetch(), HasSubstr("no TLS (see `security` in the "
                                        "configurations of both nodes)"));
}

TEST_F(BulkTlsTest, AHandshakeThatStallsIsClosedByTheDeadline) {
  StartServer({.self = NodeId("b"),
               .tls = certificates_.Load("b"),
               .stall_timeout = absl::Milliseconds(200)});
  std::vector<int> sockets;
  for (const std::vector<uint8_t>& bytes :
       {std::vector<uint8_t>{}, std::vector<uint8_t>{0x16, 3, 1},
        std::vector<uint8_t>{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc}}) {
    sockets.push_back(ConnectLocal(port_));
    ASSERT_EQ(write(sockets.back(), bytes.data(), bytes.size()),
              static_cast<ssize_t>(bytes.size()));
  }
  EXPECT_TRUE(Eventually([&] { return server_->counters().connections == 3; }));
  EXPECT_TRUE(Eventually([&] { return server_->counters().connections == 0; }));
  for (const int fd : sockets) close(fd);
}

TEST_F(BulkTlsTest, RandomHandshakesHarmNobody) {
  std::mt19937_64 random(kSeed);
  for (int round = 0; round < 200; ++round) {
    // The head of a ClientHello that announces up to 128 KiB, then junk.
    std::vector<uint8_t> bytes = {0x16, 3, 1, 0x40, 0, 1, 1, 0xff, 0xf0, 3, 3};
    const size_t size = random() % 40'000;
    while (bytes.size() < size) {
      bytes.push_back(static_cast<uint8_t>(random()));
    }
    if (round % 2 == 0) bytes[random() % 11] = static_cast<uint8_t>(random());
    const int fd = ConnectLocal(port_);
    Exchange(fd, bytes, 1);
    close(fd);
  }
  EXPECT_TRUE(Eventually([&] { return server_->counters().connections == 0; }));
  HoldAll();
  EXPECT_TRUE(Fetch(FetchOf(chunks_))->status.ok());
}

TEST_F(BulkTlsTest, ADialEndsByItsTimeoutWhenThePeerStallsInTheHandshake) {
  Break({.stall_at = 10});
  StartTransport({.self = NodeId("a"),
                  .connect_timeout = absl::Milliseconds(200),
                  .tls = certificates_.Load("a"),
                  .resolve = {}});
  EXPECT_THAT(RefusedFetch(), HasSubstr("the other side stalled"));
}

TEST_F(BulkTlsTest, AFlippedBitAnywhereEndsTheRequest) {
  HoldAll();
  const uint64_t all = peer_.object(chunks_[0].ref.key)->size() + 2000;
  for (uint64_t at = 0; at < all; at += 97) {
    Break({.flip_bit_at = at});
    StartTransportAs("a", certificates_.Load("a"));
    delivery::FetchRequest request = FetchOf({chunks_[0]});
    request.deadline = SteadyNow() + absl::Milliseconds(500);
    auto record = Fetch(std::move(request));
    // Behind the last byte, or in a field that both versions of TLS ignore.
    if (record->status.ok()) {
      EXPECT_TRUE(record->items[0].verified.ok()) << at;
      continue;
    }
    EXPECT_TRUE(absl::IsUnavailable(record->status) ||
                absl::IsDeadlineExceeded(record->status))
        << at << ": " << record->status;
    transport_ = nullptr;
  }
}

TEST_F(BulkTlsTest, ACutConnectionFailsOnlyItsRequest) {
  HoldAll();
  Break({.cut_at = peer_.object(chunks_[0].ref.key)->size() / 2 + 1500});
  auto record = Fetch(FetchOf({chunks_[0]}));
  EXPECT_TRUE(absl::IsUnavailable(record->status)) << record->status;
  port_ = server_->port();
  EXPECT_TRUE(Fetch(FetchOf({chunks_[0]}))->status.ok());
}

TEST_F(BulkTlsTest, AFetchEndsByItsDeadlineInTheMiddle) {
  HoldAll();
  Break({.stall_at = 4000});
  delivery::FetchRequest request = FetchOf(chunks_);
  request.deadline = SteadyNow() + absl::Milliseconds(300);
  auto record = Fetch(std::move(request));
  EXPECT_TRUE(absl::IsDeadlineExceeded(record->status)) << record->status;
  EXPECT_LT(SteadyNow(), request.deadline + absl::Seconds(10));
}

TEST_F(BulkTlsTest, ACancelledFetchEndsInTheMiddle) {
  HoldAll();
  Break({.stall_at = 4000});
  auto record = Begin(FetchOf(chunks_));
  ASSERT_TRUE(
      Eventually([&] { return server_meters_->Get("peer_bytes_out") > 0; }));
  transport_->CancelFetch(last_fetch_);
  record->done.WaitForNotification();
  EXPECT_TRUE(absl::IsCancelled(record->status)) << record->status;
  port_ = server_->port();
  EXPECT_TRUE(Fetch(FetchOf(chunks_))->status.ok());
}

}  // namespace
}  // namespace kdn::rpc
