// Nodes at other addresses than 127.0.0.1.
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <string>

#include "kv/host_port.h"
#include "tests/integration/cluster_fixture.h"

namespace kdn::integration {
namespace {

// The addresses at which sockets of this machine listen at `port`, as the
// kernel writes them.
std::set<std::string> ListenersAt(uint16_t port) {
  std::set<std::string> addresses;
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream lines(table);
    std::string number, local, remote, state, rest;
    std::getline(lines, rest);
    while (lines >> number >> local >> remote >> state) {
      std::getline(lines, rest);
      const size_t colon = local.find(':');
      if (state == "0A" &&
          std::stoul(local.substr(colon + 1), nullptr, 16) == port) {
        addresses.insert(local.substr(0, colon));
      }
    }
  }
  return addresses;
}

class AddressesTest
    : public ClusterTest,
      public testing::WithParamInterface<std::pair<const char*, const char*>> {
};

TEST_P(AddressesTest, AllPortsAreAtTheConfiguredAddressAndNowhereElse) {
  const auto [host, kernel] = GetParam();
  Configure({.nodes = 2, .host = host});
  StartAll();
  const auto receipt = Put(Make(0));
  ASSERT_TRUE(receipt.ok()) << receipt.status();
  EXPECT_EQ(receipt->holders.size(), 2u);
  for (const cli::NodeConfig& node : cluster_->config().nodes) {
    for (const uint16_t port :
         {node.control_port, node.bulk_port, node.gateway_port}) {
      EXPECT_EQ(ListenersAt(port), std::set<std::string>{kernel}) << port;
    }
    const auto tcp =
        rpc::Client::Connect(HostPort(node.host, node.gateway_port));
    EXPECT_TRUE(tcp.ok()) << tcp.status();
  }
}

INSTANTIATE_TEST_SUITE_P(
    Hosts, AddressesTest,
    testing::Values(std::pair("127.0.0.2", "0200007F"),
                    std::pair("localhost", "0100007F"),
                    std::pair("::1", "00000000000000000000000001000000")));

}  // namespace
}  // namespace kdn::integration
