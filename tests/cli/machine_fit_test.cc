#include "cli/machine_fit.h"

#include <gtest/gtest.h>

namespace kdn::cli {
namespace {

constexpr uint64_t kGiB = 1ull << 30;

Machine SomeMachine() {
  return {64 * kGiB, [](const std::string& path) -> std::optional<FileSystem> {
            if (path.rfind("/silent", 0) == 0) return std::nullopt;
            return path.rfind("/fast", 0) == 0 ? FileSystem{1, 100 * kGiB}
                                               : FileSystem{2, 1000 * kGiB};
          }};
}

NodeConfig Node(const std::string& id, uint64_t memory,
                const std::string& data_dir, uint64_t disk) {
  NodeConfig node;
  node.id = NodeId(id);
  node.memory_bytes = memory;
  node.data_dir = data_dir;
  node.disk_bytes = disk;
  return node;
}

TEST(MachineFitTest, NodesThatFitPass) {
  const std::vector<NodeConfig> full = {
      Node("a", 32 * kGiB, "/fast/a", 50 * kGiB),
      Node("b", 32 * kGiB, "/fast/b", 50 * kGiB)};
  EXPECT_TRUE(CheckMemory(full, SomeMachine()).ok());
  EXPECT_TRUE(CheckDisk(full, SomeMachine()).ok());
  EXPECT_TRUE(CheckDisk({Node("a", kGiB, "", 5000 * kGiB),
                         Node("b", kGiB, "/silent/b", 5000 * kGiB)},
                        SomeMachine())
                  .ok());
}

TEST(MachineFitTest, EveryMistakeIsNamedWithItsRemedy) {
  const std::vector<NodeConfig> nodes = {
      Node("a", 40 * kGiB, "/fast/a", 60 * kGiB),
      Node("b", 40 * kGiB, "/fast/b", 60 * kGiB),
      Node("c", kGiB, "/slow/c", 2000 * kGiB)};
  const absl::Status memory = CheckMemory(nodes, SomeMachine());
  EXPECT_TRUE(absl::IsInvalidArgument(memory)) << memory;
  EXPECT_EQ(memory.message(),
            "a, b, c: `memory` is 81.0 GiB together, and this machine has 64.0 "
            "GiB: lower `memory`");
  const absl::Status disk = CheckDisk(nodes, SomeMachine());
  EXPECT_TRUE(absl::IsInvalidArgument(disk)) << disk;
  EXPECT_EQ(disk.message(),
            "a, b: `disk` is 120.0 GiB together, and the file system of "
            "/fast/a has 100.0 GiB: lower `disk`\n"
            "c: `disk` is 2000.0 GiB, and the file system of /slow/c has "
            "1000.0 GiB: lower `disk`");
}

TEST(MachineFitTest, ThisMachineHasMemoryAndAFileSystemForPathsToBe) {
  const Machine machine = ThisMachine();
  EXPECT_GT(machine.memory_bytes, 64u << 20);
  const auto root = machine.file_system("/");
  ASSERT_TRUE(root.has_value());
  EXPECT_GT(root->bytes, 0u);
  EXPECT_TRUE(machine.file_system("/nowhere/at/all/yet").has_value());
}

TEST(MachineFitTest, OnlyLoopbackNodesAreSurelyHere) {
  ClusterConfig config;
  for (const char* host : {"127.0.0.1", "127.3.2.1", "localhost", "::1",
                           "10.0.0.1", "n1.example.org"}) {
    config.nodes.push_back(Node(host, 1, "", 0));
    config.nodes.back().host = host;
  }
  EXPECT_EQ(LoopbackNodes(config).size(), 4u);
}

}  // namespace
}  // namespace kdn::cli
