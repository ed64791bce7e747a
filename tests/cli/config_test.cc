#include "cli/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace kdn::cli {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr char kGood[] = R"(# a comment
cluster: {name: c, replicas: 2, heartbeat: 100ms}
defaults: {memory: 1.5 GiB, disk: 1 GB, data_dir: /d, calibrations: /c}
nodes:
  - {id: n1, control_port: 1, bulk_port: 2, gateway_port: 3}
  - id: n2
    control_port: 4
    bulk_port: 5
    gateway_port: 6
    weight: 2.5
    memory: 64 MiB
    data_dir: /e
    calibrations: ~/own
)";

std::string Mistakes(const std::string& text) {
  const auto config = ParseClusterConfig(text, "f.yaml");
  EXPECT_TRUE(absl::IsInvalidArgument(config.status())) << text;
  return std::string(config.status().message());
}

// kGood with `old_text` replaced by `new_text`.
std::string With(const std::string& old_text, const std::string& new_text) {
  std::string text = kGood;
  const size_t at = text.find(old_text);
  EXPECT_NE(at, std::string::npos) << old_text;
  return text.replace(at, old_text.size(), new_text);
}

TEST(ConfigTest, ReadsSizesDurationsAndDefaults) {
  const auto config = ParseClusterConfig(kGood, "f.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->heartbeat, absl::Milliseconds(100));
  EXPECT_EQ(config->peer_timeout, absl::Seconds(2));
  ASSERT_EQ(config->nodes.size(), 2u);
  EXPECT_EQ(config->nodes[0].memory_bytes, 3ull << 29);
  EXPECT_EQ(config->nodes[1].memory_bytes, 64u << 20);
  EXPECT_EQ(config->nodes[1].disk_bytes, 1000000000u);
  EXPECT_EQ(config->nodes[1].weight, 2.5);
  EXPECT_EQ(config->nodes[0].calibrations, "/c");
  EXPECT_EQ(config->nodes[1].calibrations,
            std::string(std::getenv("HOME")) + "/own");
  EXPECT_EQ(config->Find("n2")->bulk_port, 5);
  EXPECT_EQ(config->Find("n9"), nullptr);
}

TEST(ConfigTest, AMistakeNamesFileLineAndWhatWasExpected) {
  EXPECT_THAT(Mistakes(With("replicas: 2", "replicas: two")),
              HasSubstr("f.yaml:2: found 'two', expected a whole number"));
  EXPECT_THAT(Mistakes(With("weight: 2.5", "weight: -1")),
              HasSubstr("f.yaml:10: found '-1', expected a number above 0"));
  EXPECT_THAT(Mistakes(With("memory: 64 MiB", "memory: lots")),
              HasSubstr("f.yaml:11: found 'lots', expected a size"));
  EXPECT_THAT(Mistakes(With("calibrations: ~/own", "calibrations: [a, b]")),
              HasSubstr("f.yaml:13: found a list, expected a word or text"));
  EXPECT_THAT(Mistakes(With("heartbeat: 100ms", "heartbeat: 9s")),
              HasSubstr("peer_timeout"));
  EXPECT_THAT(Mistakes(With("heartbeat: 100ms", "heartbeat: soon")),
              HasSubstr("expected a duration"));
  EXPECT_THAT(Mistakes(With("control_port: 4", "control_port: 70000")),
              HasSubstr("expected a whole number from 1 to 65535"));
}

TEST(ConfigTest, AHostIsANameOrAnAddressWithoutAPort) {
  for (const auto& [text, host] :
       {std::pair("host: kdn-a.internal", "kdn-a.internal"),
        {"host: '::1'", "::1"},
        {"host: '[fe80::1]'", "fe80::1"},
        {"host: 127.0.0.2", "127.0.0.2"}}) {
    const auto config = ParseClusterConfig(With("weight: 2.5", text), "f.yaml");
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->nodes[1].host, host);
    EXPECT_EQ(config->nodes[1].listen, "");
  }
  for (const char* wrong : {"host: 'a:1'", "host: '[::1]:1'", "host: [a]",
                            "listen: 'a b'", "listen: a/24"}) {
    EXPECT_THAT(Mistakes(With("weight: 2.5", wrong)),
                HasSubstr("expected a host name or an address"))
        << wrong;
  }
}

TEST(ConfigTest, TheModeOfASocketIsOctal) {
  const auto config = ParseClusterConfig(
      With("weight: 2.5", "gateway_socket_mode: 0660"), "f.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->nodes[0].gateway_socket_mode, 0600u);
  EXPECT_EQ(config->nodes[1].gateway_socket_mode, 0660u);
  for (const char* wrong : {"0060", "rw", "01777", "0689"}) {
    EXPECT_THAT(Mistakes(With("weight: 2.5",
                              std::string("gateway_socket_mode: ") + wrong)),
                HasSubstr("expected a mode such as 0660"))
        << wrong;
  }
}

TEST(ConfigTest, TwoNodesOfOneHostMustNotShareADirectory) {
  EXPECT_THAT(Mistakes(With("data_dir: /e", "data_dir: /d")),
              HasSubstr("data_dir /d on 127.0.0.1 is taken"));
}

TEST(ConfigTest, ATypoGetsASuggestion) {
  EXPECT_THAT(Mistakes(With("replicas", "replcas")),
              HasSubstr("unknown key 'replcas' in cluster; did you mean "
                        "'replicas'?"));
}

TEST(ConfigTest, EveryMistakeIsReportedAtOnce) {
  std::string text = With("weight: 2.5", "weight: x");
  text.replace(text.find("replicas: 2"), 11, "replicas: x");
  const std::string mistakes = Mistakes(text);
  EXPECT_THAT(mistakes, HasSubstr("f.yaml:2:"));
  EXPECT_THAT(mistakes, HasSubstr("f.yaml:10:"));
}

TEST(ConfigTest, CollisionsAndMissingSettingsAreFound) {
  EXPECT_THAT(Mistakes(With("control_port: 4", "control_port: 2")),
              HasSubstr("control_port 2 on 127.0.0.1 is taken"));
  EXPECT_THAT(Mistakes(With("id: n2", "id: n1")), HasSubstr("there twice"));
  EXPECT_THAT(Mistakes(With("    bulk_port: 5\n", "")),
              HasSubstr("has no 'bulk_port'"));
  EXPECT_THAT(Mistakes(With("disk: 1 GB", "disk: 1 MB")),
              HasSubstr("expected at least 16 MiB"));
  EXPECT_THAT(Mistakes(With("memory: 64 MiB", "memory: 1 MiB")),
              HasSubstr("expected at least 4 MiB"));
  EXPECT_THAT(Mistakes("nodes: []"), HasSubstr("expected a list of nodes"));
  EXPECT_THAT(Mistakes("cluster: {}"), HasSubstr("no 'nodes'"));
}

TEST(ConfigTest, ATextThatIsNotYamlIsReported) {
  EXPECT_THAT(Mistakes("nodes: [\n"), HasSubstr("not YAML"));
  EXPECT_THAT(Mistakes("just text"), HasSubstr("expected the configuration"));
}

std::string WithSecurity(const std::string& security) {
  return std::string(kGood) + "security: {" + security + "}\n";
}

ClusterConfig Secured(const std::string& security) {
  auto config = ParseClusterConfig(WithSecurity(security), "f.yaml");
  EXPECT_TRUE(config.ok()) << config.status();
  return *std::move(config);
}

TEST(ConfigTest, ADirectoryOfCertificatesHasTheFilesOfEveryNode) {
  const ClusterConfig config = Secured("certificates: ~/certs");
  const auto files = TlsFilesOf(config, config.nodes[1]);
  ASSERT_TRUE(files.has_value());
  const std::string home = std::getenv("HOME");
  EXPECT_EQ(files->ca, home + "/certs/ca.pem");
  EXPECT_EQ(files->certificate, home + "/certs/n2.pem");
  EXPECT_EQ(files->key, home + "/certs/n2.key");
  EXPECT_TRUE(config.security.gateway_tls());
  EXPECT_EQ(GatewayAddressOf(config, config.nodes[1]), "tls://127.0.0.1:6");
}

TEST(ConfigTest, FilesOfOtherNamesMayHaveTheNodesName) {
  const ClusterConfig config = Secured(
      "ca: /t/ca.crt, certificate: '/t/{node}/tls.crt', key: /t/tls.key, "
      "gateway: false");
  const auto files = TlsFilesOf(config, config.nodes[0]);
  ASSERT_TRUE(files.has_value());
  EXPECT_EQ(files->ca, "/t/ca.crt");
  EXPECT_EQ(files->certificate, "/t/n1/tls.crt");
  EXPECT_EQ(files->key, "/t/tls.key");
  EXPECT_FALSE(config.security.gateway_tls());
  EXPECT_EQ(GatewayAddressOf(config, config.nodes[0]), "127.0.0.1:3");
}

TEST(ConfigTest, WithoutCertificatesThereAreNoFiles) {
  for (const char* security : {"", "insecure: true", "insecure: false"}) {
    const ClusterConfig config = Secured(security);
    EXPECT_EQ(TlsFilesOf(config, config.nodes[0]), std::nullopt);
    EXPECT_FALSE(config.security.gateway_tls());
  }
}

TEST(ConfigTest, AMistakeInSecurityNamesItsLine) {
  const std::pair<const char*, const char*> mistakes[] = {
      {"certificate_dir: c",
       "f.yaml:14: unknown key 'certificate_dir' in "
       "security"},
      {"certificate: c",
       "f.yaml:14: 'certificate' without 'ca', 'key', "
       "expected all three files"},
      {"certificates: c, ca: a, certificate: b, key: d",
       "f.yaml:14: 'certificates' and 'ca', expected one of them"},
      {"certificates: c, insecure: true",
       "f.yaml:14: certificates and 'insecure: true', expected one of them"},
      {"gateway: true", "f.yaml:14: 'gateway: true' without certificates"},
      {"insecure: yes", "f.yaml:14: found 'yes', expected true or false"},
      {"certificates: [a]", "f.yaml:14: found a list, expected a word"}};
  for (const auto& [security, mistake] : mistakes) {
    EXPECT_THAT(Mistakes(WithSecurity(security)), HasSubstr(mistake));
  }
  EXPECT_THAT(Mistakes(std::string(kGood) + "security: on\n"),
              HasSubstr("f.yaml:14: found 'on', expected security as a map"));
}

TEST(ConfigTest, WithCertificatesTheNameOfANodeIsTheNameOfFiles) {
  for (const char* id :
       {"ca", "../n1", "a b", ".n", "-n", "\"\\u00e9\"",
        "n0123456789012345678901234567890123456789012345678901234567890123"}) {
    const std::string text = With("id: n2", std::string("id: ") + id);
    EXPECT_TRUE(ParseClusterConfig(text, "f.yaml").ok()) << id;
    EXPECT_THAT(Mistakes(text + "security: {certificates: c}\n"),
                HasSubstr("f.yaml:6: node '"))
        << id;
  }
}

TEST(ConfigTest, NodesThatOtherMachinesReachNeedCertificates) {
  for (const char* address :
       {"host: 10.0.0.1", "host: kdn-a.internal", "listen: 0.0.0.0",
        "listen: '::'", "host: '::ffff:127.0.0.1'"}) {
    const std::string text = With("weight: 2.5", address);
    const auto open = ParseClusterConfig(text, "f.yaml");
    ASSERT_TRUE(open.ok()) << open.status();
    const absl::Status refused = CheckReach(*open);
    EXPECT_TRUE(absl::IsInvalidArgument(refused)) << refused;
    EXPECT_THAT(std::string(refused.message()),
                AllOf(HasSubstr("node n2 listens on"), HasSubstr("kdn certs"),
                      HasSubstr("insecure: true")));
    for (const char* security : {"certificates: c", "insecure: true"}) {
      const auto allowed =
          ParseClusterConfig(text + "security: {" + security + "}\n", "f.yaml");
      ASSERT_TRUE(allowed.ok()) << allowed.status();
      EXPECT_TRUE(CheckReach(*allowed).ok());
    }
  }
  for (const char* address : {"host: localhost", "host: '::1'",
                              "host: 127.0.0.2", "listen: 127.0.0.1"}) {
    const auto alone = ParseClusterConfig(With("weight: 2.5", address), "f");
    ASSERT_TRUE(alone.ok()) << alone.status();
    EXPECT_TRUE(CheckReach(*alone).ok()) << CheckReach(*alone);
  }
}

TEST(ConfigTest, EveryShippedConfigurationIsRight) {
  int found = 0;
  for (const auto& entry : std::filesystem::directory_iterator(
           std::string(KDN_SOURCE_DIR) + "/configs")) {
    if (entry.path().extension() != ".yaml") continue;
    ++found;
    const auto config = LoadClusterConfig(entry.path().string());
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_TRUE(CheckReach(*config).ok()) << CheckReach(*config);
  }
  EXPECT_EQ(found, 3);
}

TEST(ConfigTest, AMissingFileSaysWhatToDo) {
  const auto config = LoadClusterConfig("/nonexistent.yaml");
  EXPECT_TRUE(absl::IsInvalidArgument(config.status()));
  EXPECT_THAT(std::string(config.status().message()),
              HasSubstr("configs/local-3.yaml"));
}

}  // namespace
}  // namespace kdn::cli
