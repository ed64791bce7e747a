#include "actors/peer_network.h"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "actors/cluster_view.h"
#include "actors/node.h"
#include "rpc/control/control_port.h"
#include "tests/actors/no_transport.h"
#include "tests/rpc/control/raw_socket.h"
#include "tests/rpc/tls/test_certificates.h"

namespace kdn::actors {
namespace {

// A port of this host that nobody uses.
uint16_t FreePort() {
  const auto probe = rpc::ControlPort::Create({});
  return *probe->Listen("127.0.0.1", 0, [](auto) {});
}

class PeerNetworkTest : public testing::Test {
 protected:
  struct Started {
    NoTransport transport;
    ViewHolder view;
    std::unique_ptr<rpc::ControlPort> network;
    std::unique_ptr<Node> node;

    std::shared_ptr<Meters> meters = std::make_shared<Meters>();

    size_t live() const { return view.Get()->live.size(); }
    // Whether `count` nodes are live before a minute has passed.
    bool AwaitLive(size_t count) const {
      for (int i = 0; i < 6000 && live() != count; ++i) {
        absl::SleepFor(absl::Milliseconds(10));
      }
      return live() == count;
    }
    // Whether the control port has refused a peer before a minute has passed.
    bool AwaitRefusal() const {
      for (int i = 0; i < 6000 && meters->Get("peer_refused") == 0; ++i) {
        absl::SleepFor(absl::Milliseconds(10));
      }
      return meters->Get("peer_refused") > 0;
    }
  };

  PeerNetworkTest() {
    for (const char* id : {"n1", "n2"}) {
      placement::MemberSpec member;
      member.id = NodeId(id);
      member.addresses.host = "127.0.0.1";
      member.addresses.control_port = FreePort();
      members_.push_back(member);
    }
  }
  uint16_t PortOf(size_t i) const { return members_[i].addresses.control_port; }
  std::unique_ptr<Started> Start(
      size_t i, std::shared_ptr<const rpc::TlsCredentials> tls = nullptr) {
    auto started = std::make_unique<Started>();
    started->network = rpc::ControlPort::Create(
        {.tls = std::move(tls), .meters = started->meters});
    NodeOptions options;
    options.self = members_[i].id;
    options.members = members_;
    options.workers = 1;
    options.memory_bytes = 16u << 20;
    auto node = Node::Start(std::move(options), &started->transport,
                            started->network.get(), &started->view, &clock_);
    EXPECT_TRUE(node.ok()) << node.status();
    if (node.ok()) started->node = *std::move(node);
    return started;
  }
  // A header of CAF's protocol, with zeros where nothing is given.
  static std::string Header(uint8_t type, uint32_t payload, uint64_t data = 0,
                            uint64_t actor = 0) {
    std::string header(32, '\0');
    header[0] = static_cast<char>(type);
    const auto put = [&](size_t at, uint64_t value, int bytes) {
      for (int i = 0; i < bytes; ++i) {
        header[at + static_cast<size_t>(i)] =
            static_cast<char>(value >> (8 * (bytes - 1 - i)));
      }
    };
    put(4, payload, 4);
    put(8, data, 8);
    put(24, actor, 8);
    return header;
  }

  RealClock clock_;
  rpc::TestCertificates certificates_;
  std::vector<placement::MemberSpec> members_;
};

TEST_F(PeerNetworkTest, TwoNodesFindEachOtherAndNoticeALoss) {
  for (const bool tls : {false, true}) {
    const auto credentials = [&](const char* name) {
      return tls ? certificates_.Load(name) : nullptr;
    };
    const auto one = Start(0, credentials("n1"));
    auto two = Start(1, credentials("n2"));
    EXPECT_TRUE(one->AwaitLive(2));
    EXPECT_TRUE(two->AwaitLive(2));
    two = nullptr;
    EXPECT_TRUE(one->AwaitLive(1));
    two = Start(1, credentials("n2"));
    EXPECT_TRUE(one->AwaitLive(2));
  }
}

TEST_F(PeerNetworkTest, NodesWithoutACommonAuthorityStayApart) {
  const rpc::TestCertificates others;
  const auto one = Start(0, certificates_.Load("n1"));
  const auto two = Start(1, others.Load("n2"));
  // Each has dialled the other one.
  EXPECT_TRUE(one->AwaitRefusal());
  EXPECT_TRUE(two->AwaitRefusal());
  EXPECT_EQ(one->live(), 1u);
  EXPECT_EQ(two->live(), 1u);
}

// 0 and 1 are the handshakes, 2 a message to an actor, 6 a heartbeat.
TEST_F(PeerNetworkTest, AMalformedHeaderEndsItsConnectionAndNothingElse) {
  const auto one = Start(0);
  const std::vector<std::string> hostile = {
      Header(0, 0, 5),                              // no payload
      Header(1, 0),                                 // no payload
      Header(0, 0xFFFFFFFF, 5),                     // 4 GiB
      Header(1, kControlGreetingMax + 1),           // too long a greeting
      Header(2, 16, 0, 1) + std::string(16, '\0'),  // no handshake before
      Header(3, 16, 0, 1) + std::string(16, '\0'),  //
      Header(4, 16, 0, 1) + std::string(16, '\0'),  //
      Header(5, 16, 0, 1) + std::string(16, '\0'),  //
      Header(6, 0),                                 //
      Header(6, 8) + std::string(8, '\0'),          //
      Header(77, 8) + std::string(8, '\0'),         // no such message
      Header(1, 4) + std::string(4, '\xFF'),        // a payload of nonsense
      std::string(4096, '\xFF'),
  };
  for (const std::string& bytes : hostile) {
    const RawSocket client(PortOf(0));
    EXPECT_NE(client.Receive().value_or(""), "");  // the server's handshake
    client.Send(bytes);
    EXPECT_TRUE(client.SeesTheEnd()) << static_cast<int>(bytes[0]);
  }
  auto two = Start(1);
  EXPECT_TRUE(one->AwaitLive(2));
}

// Each connection may receive a large message, but not all of them together.
TEST_F(PeerNetworkTest, LargeMessagesAreReceivedOfAFewPeersAtATime) {
  const auto one = Start(0);
  const auto two = Start(1);
  EXPECT_TRUE(one->AwaitLive(2));
  std::vector<std::unique_ptr<RawSocket>> peers;
  const uint64_t room = kControlReceivingMax / kControlMessageMax;
  for (uint64_t i = 0; i <= room; ++i) {
    peers.push_back(std::make_unique<RawSocket>(PortOf(0)));
    EXPECT_NE(peers.back()->Receive().value_or(""), "");
    // The payload of a handshake is the id of a node, which is not read here.
    peers.back()->Send(Header(1, 4) + std::string(4, '\0'));
    peers.back()->Send(Header(2, kControlMessageMax, 0, 1));
  }
  EXPECT_TRUE(one->AwaitLive(2));
}

TEST_F(PeerNetworkTest, AHostilePeerEndsItsConnectionAndNothingElse) {
  const auto one = Start(0);
  for (const uint32_t length : {0u, 0xFFFFFFFFu}) {
    const RawListener in_place_of_n2(PortOf(1));
    const std::unique_ptr<RawSocket> client = in_place_of_n2.Accept();
    ASSERT_NE(client, nullptr);
    client->Send(Header(0, length, 5));
    EXPECT_TRUE(client->SeesTheEnd());
  }
  const auto two = Start(1);
  EXPECT_TRUE(one->AwaitLive(2));
}

}  // namespace
}  // namespace kdn::actors
