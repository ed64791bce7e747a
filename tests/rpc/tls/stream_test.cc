#include "rpc/tls/stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "rpc/tls/context.h"
#include "tests/rpc/tls/test_certificates.h"

namespace kdn::rpc {
namespace {

using ::testing::HasSubstr;

// Two ends of a connection on one event loop.
class TlsIoStreamTest : public testing::Test {
 protected:
  struct Ends {
    kj::Own<TlsIoStream> client;
    kj::Own<TlsIoStream> server;
  };

  // Handshakes over a new pipe. Each error is written to its string.
  Ends Handshake(SSL_CTX& client, const std::string& host, SSL_CTX& server) {
    auto pipe = io_.provider->newTwoWayPipe();
    Ends ends;
    errors_ = {};
    auto dialled =
        Into(TlsIoStream::Connect(kj::mv(pipe.ends[0]), client, host),
             ends.client, errors_[0]);
    Into(TlsIoStream::Accept(kj::mv(pipe.ends[1]), server), ends.server,
         errors_[1])
        .wait(io_.waitScope);
    dialled.wait(io_.waitScope);
    return ends;
  }
  Ends Connected() { return Handshake(*Peer("a"), "b", *Peer("b")); }
  SslContext Peer(const std::string& name) {
    return certificates_.Load(name)->NewSslContext();
  }
  static kj::Promise<void> Into(kj::Promise<kj::Own<TlsIoStream>> handshake,
                                kj::Own<TlsIoStream>& stream,
                                std::string& error) {
    return handshake
        .then([&](kj::Own<TlsIoStream> done) { stream = kj::mv(done); },
              [&](kj::Exception&& broken) {
                error = broken.getDescription().cStr();
              })
        .eagerlyEvaluate(nullptr);
  }
  // What a read of the stream fails with.
  std::string ReadError(kj::AsyncIoStream& stream) {
    char byte;
    std::string error;
    stream.tryRead(&byte, 1, 1)
        .ignoreResult()
        .catch_([&](kj::Exception&& broken) {
          EXPECT_EQ(broken.getType(), kj::Exception::Type::DISCONNECTED);
          error = broken.getDescription().cStr();
        })
        .wait(io_.waitScope);
    return error;
  }
  static std::string RandomText(size_t bytes) {
    std::mt19937_64 random(bytes);
    std::string text(bytes, '\0');
    for (char& c : text) c = static_cast<char>(random());
    return text;
  }

  std::unique_ptr<kj::AsyncIoContext> context_ =
      std::make_unique<kj::AsyncIoContext>(kj::setupAsyncIo());
  kj::AsyncIoContext& io_ = *context_;
  TestCertificates certificates_;
  std::array<std::string, 2> errors_;  // of the client, of the server
};

TEST_F(TlsIoStreamTest, EachEndKnowsTheOthersName) {
  const Ends ends = Connected();
  EXPECT_EQ(ends.client->peer_name(), "b");
  EXPECT_EQ(ends.server->peer_name(), "a");
}

TEST_F(TlsIoStreamTest, BytesOfEverySizeArriveInOrder) {
  Ends ends = Connected();
  for (const size_t bytes : {1, 2, 1000, 16383, 16384, 16385, 100'000, 131'072,
                             1'000'000, 20'000'000}) {
    const std::string sent = RandomText(bytes);
    std::string got(bytes, '\0');
    auto writing =
        ends.client->write(sent.data(), sent.size()).eagerlyEvaluate(nullptr);
    ends.server->read(got.data(), got.size()).wait(io_.waitScope);
    writing.wait(io_.waitScope);
    EXPECT_TRUE(sent == got) << bytes;
  }
}

// Each end changes its keys a hundred times and more, which the other end
// follows.
TEST_F(TlsIoStreamTest, KeysChangeWhileBytesFlow) {
  Ends ends = Connected();
  ends.client->set_key_bytes(50'000);
  ends.server->set_key_bytes(70'000);
  const std::string sent = RandomText(10'000'000);
  for (auto [from, to] : {std::pair(ends.client.get(), ends.server.get()),
                          std::pair(ends.server.get(), ends.client.get())}) {
    std::string got(sent.size(), '\0');
    auto writing =
        from->write(sent.data(), sent.size()).eagerlyEvaluate(nullptr);
    to->read(got.data(), got.size()).wait(io_.waitScope);
    writing.wait(io_.waitScope);
    EXPECT_TRUE(sent == got);
  }
}

TEST_F(TlsIoStreamTest, PiecesOfEverySizeArriveInOrder) {
  Ends ends = Connected();
  const std::string sent = RandomText(3'000'000);
  std::vector<kj::ArrayPtr<const kj::byte>> pieces;
  std::mt19937_64 random(1);
  for (size_t at = 0; at < sent.size();) {
    const size_t most = random() % 3 == 0 ? 100'000 : 300;
    const size_t count = std::min(random() % most, sent.size() - at);
    pieces.push_back(kj::arrayPtr(
        reinterpret_cast<const kj::byte*>(sent.data()) + at, count));
    at += count;
  }
  auto writing = ends.server->write(kj::arrayPtr(pieces.data(), pieces.size()))
                     .eagerlyEvaluate(nullptr);
  std::string got(sent.size(), '\0');
  ends.client->read(got.data(), got.size()).wait(io_.waitScope);
  writing.wait(io_.waitScope);
  EXPECT_TRUE(sent == got);
}

TEST_F(TlsIoStreamTest, BothEndsSendAtTheSameTime) {
  Ends ends = Connected();
  const std::string sent = RandomText(5'000'000);
  std::string here(sent.size(), '\0');
  std::string there(sent.size(), '\0');
  auto all = kj::heapArrayBuilder<kj::Promise<void>>(4);
  all.add(ends.client->write(sent.data(), sent.size()));
  all.add(ends.server->write(sent.data(), sent.size()));
  all.add(ends.client->read(here.data(), here.size()));
  all.add(ends.server->read(there.data(), there.size()));
  kj::joinPromises(all.finish()).wait(io_.waitScope);
  EXPECT_TRUE(sent == here && sent == there);
}

TEST_F(TlsIoStreamTest, AReadTakesWhatHasCome) {
  Ends ends = Connected();
  ends.client->write("abc", 3).wait(io_.waitScope);
  char got[10] = {};
  EXPECT_EQ(ends.server->tryRead(got, 2, 10).wait(io_.waitScope), 3u);
  EXPECT_STREQ(got, "abc");
}

TEST_F(TlsIoStreamTest, ACancelledReadLosesNothing) {
  Ends ends = Connected();
  const std::string sent = RandomText(300'000);
  std::string got(sent.size(), '\0');
  auto writing =
      ends.client->write(sent.data(), sent.size()).eagerlyEvaluate(nullptr);
  for (size_t at = 0; at < got.size();) {
    const size_t count = std::min<size_t>(got.size() - at, 7001);
    ends.server->read(got.data() + at, count).wait(io_.waitScope);
    at += count;
  }
  writing.wait(io_.waitScope);
  EXPECT_TRUE(sent == got);
  for (const char next : {'x', 'y', 'z'}) {
    char byte = 0;
    auto idle = ends.server->tryRead(&byte, 1, 1).then([](size_t) {
      ADD_FAILURE() << "nothing was sent";
    });
    idle.exclusiveJoin(kj::evalLast([] {})).wait(io_.waitScope);
    ends.client->write(&next, 1).wait(io_.waitScope);
    ends.server->read(&byte, 1).wait(io_.waitScope);
    EXPECT_EQ(byte, next);
  }
}

TEST_F(TlsIoStreamTest, OneEndStopsSendingAndStillReceives) {
  Ends ends = Connected();
  ends.client->write("bye", 3).wait(io_.waitScope);
  ends.client->shutdownWrite();
  char got[8];
  EXPECT_EQ(ends.server->tryRead(got, 8, 8).wait(io_.waitScope), 3u);
  EXPECT_EQ(ends.server->tryRead(got, 8, 8).wait(io_.waitScope), 0u);
  ends.server->write("too", 3).wait(io_.waitScope);
  EXPECT_EQ(ends.client->tryRead(got, 3, 8).wait(io_.waitScope), 3u);
}

TEST_F(TlsIoStreamTest, TheEndOfTheConnectionIsTheEndOfTheStream) {
  Ends ends = Connected();
  ends.client = nullptr;
  char byte;
  EXPECT_EQ(ends.server->tryRead(&byte, 1, 1).wait(io_.waitScope), 0u);
}

TEST_F(TlsIoStreamTest, TheServersCertificateMustNameTheDialledHost) {
  EXPECT_EQ((Handshake(*Peer("a"), "b", *Peer("b")), errors_[0]), "");
  EXPECT_EQ((Handshake(*Peer("a"), "127.0.0.1", *Peer("b")), errors_[0]), "");
  EXPECT_EQ((Handshake(*Peer("a"), "::1", *Peer("b")), errors_[0]), "");
  Handshake(*Peer("a"), "c", *Peer("b"));
  EXPECT_THAT(errors_[0], HasSubstr("it does not name c"));
  EXPECT_THAT(errors_[1], HasSubstr("bad certificate"));
  Handshake(*Peer("a"), "10.0.0.1", *Peer("b"));
  EXPECT_THAT(errors_[0], HasSubstr("it does not name 10.0.0.1"));
}

TEST_F(TlsIoStreamTest, TheCertificateOfAnotherAuthorityIsRefused) {
  const TestCertificates others;
  const SslContext stranger = others.Load("a")->NewSslContext();
  Handshake(*stranger, "b", *Peer("b"));
  EXPECT_THAT(errors_[0], HasSubstr("an unknown authority has signed it"));
  // This client trusts the server, and has a certificate of another authority.
  Ends ends = Handshake(*stranger, "a", *others.Load("a")->NewSslContext());
  EXPECT_EQ(errors_[0], "");
  SSL_CTX* const trusting = stranger.get();
  SSL_CTX_load_verify_locations(trusting, certificates_.ca_file().c_str(),
                                nullptr);
  Handshake(*trusting, "b", *Peer("b"));
  EXPECT_THAT(errors_[1], HasSubstr("an unknown authority has signed it"));
}

TEST_F(TlsIoStreamTest, AnExpiredCertificateIsRefused) {
  const absl::Time now = absl::Now();
  const TlsFiles files = certificates_.Write(
      "b", certificates_.Issue({"b", {}},
                               {now - absl::Hours(1), now - absl::Minutes(1)}));
  const SslContext expired =
      TlsCredentials::Load(files, now - absl::Minutes(30))
          .value()
          ->NewSslContext();
  Handshake(*Peer("a"), "b", *expired);
  EXPECT_THAT(errors_[0], HasSubstr("it has expired"));
}

TEST_F(TlsIoStreamTest, AClientWithoutACertificateIsRefusedByPeersOnly) {
  const SslContext engine = EngineContext(certificates_.ca_file()).value();
  Ends ends = Handshake(*engine, "b", *Peer("b"));
  EXPECT_THAT(errors_[1], HasSubstr("peer did not return a certificate"));
  // In TLS 1.3 the client ends the handshake first.
  EXPECT_THAT(ReadError(*ends.client), HasSubstr("certificate required"));
  ends = Handshake(*engine, "b", *GatewayContext(*certificates_.Load("b")));
  EXPECT_EQ(errors_[0] + errors_[1], "");
  EXPECT_EQ(ends.server->peer_name(), "");
  EXPECT_EQ(ends.client->peer_name(), "b");
}

TEST_F(TlsIoStreamTest, BytesThatAreNotTlsAreNamedSo) {
  using std::string_literals::operator""s;
  for (const std::string& text : {"hello, world"s, "GET / HTTP/1.1\r\n\r\n"s,
                                  "\0\1\2\3\4\5\6\7"s, "\xa8\0\0\0\0\0\0\0"s}) {
    auto pipe = io_.provider->newTwoWayPipe();
    kj::Own<TlsIoStream> accepted;
    std::string error;
    pipe.ends[0]->write(text.data(), text.size()).wait(io_.waitScope);
    Into(TlsIoStream::Accept(kj::mv(pipe.ends[1]), *Peer("b")), accepted, error)
        .wait(io_.waitScope);
    EXPECT_EQ(error, "the other side does not speak TLS");
  }
}

TEST_F(TlsIoStreamTest, TheEndDuringTheHandshakeIsNamedSo) {
  auto pipe = io_.provider->newTwoWayPipe();
  pipe.ends[0] = nullptr;
  kj::Own<TlsIoStream> dialled;
  std::string error;
  Into(TlsIoStream::Connect(kj::mv(pipe.ends[1]), *Peer("a"), "b"), dialled,
       error)
      .wait(io_.waitScope);
  EXPECT_EQ(error, "the other side hung up during the TLS handshake");
}

TEST_F(TlsIoStreamTest, EveryDamagedByteBreaksTheConnection) {
  for (int damaged = 0; damaged < 60; damaged += 7) {
    auto clear = io_.provider->newTwoWayPipe();   // of the client
    auto behind = io_.provider->newTwoWayPipe();  // of the server
    Ends ends;
    auto pumping =
        clear.ends[1]->pumpTo(*behind.ends[0]).eagerlyEvaluate(nullptr);
    auto back = behind.ends[0]->pumpTo(*clear.ends[1]).eagerlyEvaluate(nullptr);
    auto dialled =
        Into(TlsIoStream::Connect(kj::mv(clear.ends[0]), *Peer("a"), "b"),
             ends.client, errors_[0]);
    Into(TlsIoStream::Accept(kj::mv(behind.ends[1]), *Peer("b")), ends.server,
         errors_[1])
        .wait(io_.waitScope);
    dialled.wait(io_.waitScope);
    ends.server->write("x", 1).wait(io_.waitScope);
    char byte;
    ends.client->read(&byte, 1).wait(io_.waitScope);
    back = nullptr;  // the next bytes of the server pass this test's hands
    ends.server->write("a record with forty bytes of text, or so", 40)
        .wait(io_.waitScope);
    kj::byte record[128];
    const size_t size =
        behind.ends[0]->tryRead(record, 62, sizeof(record)).wait(io_.waitScope);
    record[static_cast<size_t>(damaged) % size] ^= 1;
    clear.ends[1]->write(record, size).wait(io_.waitScope);
    clear.ends[1]->shutdownWrite();
    const std::string error = ReadError(*ends.client);
    if (damaged < 5) continue;  // in the header: more bytes may be missing
    EXPECT_THAT(error, HasSubstr("the TLS connection broke")) << damaged;
  }
}

}  // namespace
}  // namespace kdn::rpc
