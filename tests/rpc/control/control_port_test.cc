#include "rpc/control/control_port.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "tests/rpc/control/raw_socket.h"
#include "tests/rpc/tls/test_certificates.h"

namespace kdn::rpc {
namespace {

using delivery::ControlStream;
using testing::HasSubstr;
using StreamPtr = std::unique_ptr<ControlStream>;

constexpr absl::Duration kTimeout = absl::Seconds(10);

// The streams that a port has accepted.
class Accepted {
 public:
  delivery::ControlNetwork::OnStream Sink() {
    return [this](StreamPtr stream) {
      absl::MutexLock lock(&mutex_);
      streams_.push_back(std::move(stream));
    };
  }
  // The next stream; null when there is none in time.
  StreamPtr Next() {
    absl::MutexLock lock(&mutex_);
    const auto some = [this] { return !streams_.empty(); };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&some), kTimeout)) {
      return nullptr;
    }
    StreamPtr stream = std::move(streams_.front());
    streams_.erase(streams_.begin());
    return stream;
  }
  size_t size() {
    absl::MutexLock lock(&mutex_);
    return streams_.size();
  }

 private:
  absl::Mutex mutex_;
  std::vector<StreamPtr> streams_;
};

void WaitFor(const ControlStream& stream, int16_t events) {
  pollfd waiting{stream.fd(), events, 0};
  EXPECT_EQ(poll(&waiting, 1, 10'000), 1);
}

// Sends all of `text`.
void Send(ControlStream& stream, absl::string_view text) {
  while (!text.empty()) {
    const auto sent = stream.Write({text.data(), text.size()});
    ASSERT_TRUE(sent.ok()) << sent.status();
    text.remove_prefix(*sent);
    if (*sent == 0) WaitFor(stream, POLLOUT);
  }
}

// The next `bytes` bytes, or the error that comes instead.
absl::StatusOr<std::string> Receive(ControlStream& stream, size_t bytes) {
  std::string text;
  char buffer[4096];
  while (text.size() < bytes) {
    const auto got =
        stream.Read({buffer, std::min(sizeof(buffer), bytes - text.size())});
    if (!got.ok()) return got.status();
    text.append(buffer, *got);
    if (*got == 0) WaitFor(stream, POLLIN);
  }
  return text;
}

class ControlPortTest : public testing::Test {
 protected:
  ~ControlPortTest() override {
    // No stream comes while those that came are destroyed.
    if (server_ != nullptr) server_->Close();
  }
  void Start(ControlPort::Options options) {
    server_ = ControlPort::Create(std::move(options));
    const auto port = server_->Listen("127.0.0.1", 0, accepted_.Sink());
    ASSERT_TRUE(port.ok()) << port.status();
    port_ = *port;
  }
  void StartTls() { Start({.tls = certificates_.Load("n1")}); }
  // Dials the server as the node that the credentials name.
  absl::StatusOr<StreamPtr> Dial(std::shared_ptr<const TlsCredentials> tls,
                                 const std::string& name = "n1",
                                 absl::Duration timeout = kTimeout) {
    client_ = ControlPort::Create({.tls = std::move(tls)});
    absl::Mutex mutex;
    std::optional<absl::StatusOr<StreamPtr>> result;
    client_->Dial(NodeId(name), {"127.0.0.1", port_, 0, ""}, timeout,
                  [&](absl::StatusOr<StreamPtr> stream) {
                    absl::MutexLock lock(&mutex);
                    result = std::move(stream);
                  });
    absl::MutexLock lock(&mutex);
    const auto done = [&] { return result.has_value(); };
    mutex.Await(absl::Condition(&done));
    return *std::move(result);
  }
  bool AwaitConnections(size_t count) const {
    for (int i = 0; i < 1000; ++i) {
      if (server_->connections() == count) return true;
      absl::SleepFor(absl::Milliseconds(10));
    }
    return false;
  }
  void ExpectABothWayStream(std::shared_ptr<const TlsCredentials> tls) {
    absl::StatusOr<StreamPtr> dialled = Dial(std::move(tls));
    ASSERT_TRUE(dialled.ok()) << dialled.status();
    StreamPtr accepted = accepted_.Next();
    ASSERT_NE(accepted, nullptr);
    const std::string text(300'000, 'x');
    std::thread sender([&] { Send(**dialled, text); });
    EXPECT_EQ(*Receive(*accepted, text.size()), text);
    sender.join();
    Send(*accepted, "answer");
    EXPECT_EQ(*Receive(**dialled, 6), "answer");
    dialled->reset();
    EXPECT_FALSE(Receive(*accepted, 1).ok());
    accepted = nullptr;
    EXPECT_TRUE(AwaitConnections(0));
  }

  TestCertificates certificates_;
  // Streams end before the ports.
  std::unique_ptr<ControlPort> server_;
  std::unique_ptr<ControlPort> client_;
  Accepted accepted_;
  uint16_t port_ = 0;
};

TEST_F(ControlPortTest, CarriesBytesBothWaysInPlaintext) {
  Start({});
  ExpectABothWayStream(nullptr);
}

TEST_F(ControlPortTest, CarriesBytesBothWaysWithTls) {
  StartTls();
  ExpectABothWayStream(certificates_.Load("n2"));
}

TEST_F(ControlPortTest, WritingToAPeerThatHasGoneIsAnError) {
  for (const bool tls : {false, true}) {
    Start({.tls = tls ? certificates_.Load("n1") : nullptr});
    auto dialled = Dial(tls ? certificates_.Load("n2") : nullptr);
    ASSERT_TRUE(dialled.ok()) << dialled.status();
    const StreamPtr accepted = accepted_.Next();
    dialled->reset();
    const std::string text(1 << 16, 'x');
    absl::StatusOr<size_t> sent = 0;
    while (sent.ok()) {
      sent = accepted->Write({text.data(), text.size()});
      if (sent.ok() && *sent == 0) WaitFor(*accepted, POLLOUT);
    }
    EXPECT_TRUE(absl::IsUnavailable(sent.status())) << sent.status();
  }
}

TEST_F(ControlPortTest, ANodeThatDoesNotHaveTheDialledNameIsRefused) {
  StartTls();
  const auto stream = Dial(certificates_.Load("n2"), "n3");
  EXPECT_TRUE(absl::IsPermissionDenied(stream.status())) << stream.status();
  EXPECT_THAT(std::string(stream.status().message()),
              HasSubstr("it does not name n3"));
}

TEST_F(ControlPortTest, ANodeOfAnotherAuthorityIsRefused) {
  StartTls();
  const TestCertificates others;
  const auto stream = Dial(others.Load("n2"));
  EXPECT_TRUE(absl::IsPermissionDenied(stream.status())) << stream.status();
  EXPECT_TRUE(AwaitConnections(0));
  EXPECT_EQ(accepted_.size(), 0u);
}

TEST_F(ControlPortTest, BytesOfAStrangerDoNotReachTheNode) {
  StartTls();
  const RawSocket stranger(port_);
  stranger.Send(std::string(64, '\0'));
  EXPECT_TRUE(stranger.SeesTheEnd());
  EXPECT_TRUE(AwaitConnections(0));
  EXPECT_EQ(accepted_.size(), 0u);
}

TEST_F(ControlPortTest, APeerWithoutTlsIsNamedAsSuch) {
  Start({});
  std::thread peer([&] {
    StreamPtr accepted = accepted_.Next();
    Send(*accepted, std::string(64, '\0'));
    // The client hangs up.
    while (Receive(*accepted, 1).ok()) continue;
  });
  const auto stream = Dial(certificates_.Load("n2"));
  peer.join();
  EXPECT_TRUE(absl::IsPermissionDenied(stream.status())) << stream.status();
  EXPECT_THAT(std::string(stream.status().message()),
              HasSubstr("does not speak TLS"));
}

TEST_F(ControlPortTest, APeerThatSaysNothingIsHungUpOn) {
  for (const bool tls : {false, true}) {
    Start({.tls = tls ? certificates_.Load("n1") : nullptr,
           .greeting_timeout = absl::Milliseconds(200)});
    const RawSocket silent(port_);
    std::thread reader;
    if (!tls) {
      // The node reads, and ends the stream when the network hangs up.
      reader = std::thread([stream = accepted_.Next()]() mutable {
        while (Receive(*stream, 1).ok()) continue;
        stream = nullptr;
      });
    }
    EXPECT_TRUE(silent.SeesTheEnd());
    if (reader.joinable()) reader.join();
    EXPECT_TRUE(AwaitConnections(0));
  }
}

TEST_F(ControlPortTest, APeerThatHasIntroducedItselfStays) {
  Start({.tls = nullptr, .greeting_timeout = absl::Seconds(1)});
  const RawSocket client(port_);
  StreamPtr stream = accepted_.Next();
  ASSERT_NE(stream, nullptr);
  stream->SetGreeted();
  // A later client is hung up on by its own deadline, so that of the first one
  // is over then.
  const RawSocket silent(port_);
  std::thread reader([second = accepted_.Next()]() mutable {
    while (Receive(*second, 1).ok()) continue;
    second = nullptr;
  });
  EXPECT_TRUE(silent.SeesTheEnd());
  reader.join();
  EXPECT_TRUE(client.IsOpen());
  EXPECT_TRUE(AwaitConnections(1));
}

TEST_F(ControlPortTest, ACertificateThatNamesTheNodeAsAHostDoesNotProveIt) {
  const std::string name = "n2";
  certificates_.Write(name, certificates_.Issue(name, {"n1", "localhost"}));
  Start({.tls = *TlsCredentials::Load(
             {certificates_.ca_file(), certificates_.directory() + "/n2.pem",
              certificates_.directory() + "/n2.key"},
             absl::Now())});
  const auto stream = Dial(certificates_.Load("n3"), "n1");
  EXPECT_TRUE(absl::IsPermissionDenied(stream.status())) << stream.status();
  EXPECT_THAT(std::string(stream.status().message()),
              HasSubstr("not that of node n1"));
}

TEST_F(ControlPortTest, AFloodOfSilentClientsLeavesRoomForAPeer) {
  Start({.tls = certificates_.Load("n1"),
         .connections_max = 16,
         .silent_max = 8});
  std::vector<std::unique_ptr<RawSocket>> flood;
  for (int i = 0; i < 100; ++i) {
    flood.push_back(std::make_unique<RawSocket>(port_));
  }
  const auto stream = Dial(certificates_.Load("n2"));
  ASSERT_TRUE(stream.ok()) << stream.status();
  const StreamPtr accepted = accepted_.Next();
  ASSERT_NE(accepted, nullptr);
  accepted->SetGreeted();
  EXPECT_LE(server_->connections(), 16u);
}

TEST_F(ControlPortTest, ADialThatNobodyAnswersEndsInTime) {
  const RawListener silent(0);
  port_ = silent.port();
  const absl::Time begin = absl::Now();
  const auto stream =
      Dial(certificates_.Load("n2"), "n1", absl::Milliseconds(200));
  EXPECT_TRUE(absl::IsUnavailable(stream.status())) << stream.status();
  EXPECT_LT(absl::Now() - begin, kTimeout);
}

TEST_F(ControlPortTest, ATakenPortIsNamed) {
  Start({});
  const auto second = ControlPort::Create({});
  const auto port = second->Listen("127.0.0.1", port_, [](StreamPtr) {});
  EXPECT_TRUE(absl::IsAlreadyExists(port.status())) << port.status();
  EXPECT_THAT(std::string(port.status().message()),
              HasSubstr(std::to_string(port_)));
}

}  // namespace
}  // namespace kdn::rpc
