#include "actors/node.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/synchronization/notification.h"
#include "rpc/control/control_port.h"
#include "tests/actors/actors_fixture.h"
#include "tests/actors/no_transport.h"

namespace kdn::actors {
namespace {

class NodeTest : public testing::Test {
 protected:
  static ModelSpec Model() {
    ModelSpec spec;
    spec.num_layers = 1;
    spec.num_kv_heads = 1;
    spec.head_dim = 16;
    spec.rope.rotary_dim = 16;
    return spec;
  }
  static NodeOptions Options() {
    NodeOptions options;
    options.self = NodeId("n1");
    options.members.emplace_back();
    options.members[0].id = options.self;
    options.members[0].addresses.host = "127.0.0.1";
    options.replicas = 1;
    options.workers = 1;
    options.memory_bytes = 16u << 20;
    return options;
  }
  void Start() {
    auto node =
        Node::Start(Options(), &transport_, network_.get(), &view_, &clock_);
    ASSERT_TRUE(node.ok()) << node.status();
    node_ = *std::move(node);
  }
  std::unique_ptr<delivery::ChunkWriter> BeginStore() {
    const ChunkIdentity identity{FingerprintOf(Model()),
                                 *Namespace::Parse("t"),
                                 ChunkKey(),
                                 std::string(kRawVariant),
                                 {5, 6, 7, 8}};
    delivery::StoreRequest request{std::make_shared<const ModelSpec>(Model()),
                                   identity,
                                   {0, 1, 2, 3},
                                   LevelSet::Of(Level::kLossless),
                                   Durability::kReplicated,
                                   absl::ZeroDuration(),
                                   clock_.Now() + absl::Seconds(20)};
    std::unique_ptr<delivery::ChunkWriter> stream;
    absl::Notification begun;
    node_->service().BeginStore(
        std::move(request),
        [&](absl::StatusOr<std::unique_ptr<delivery::ChunkWriter>> answer) {
          if (answer.ok()) stream = *std::move(answer);
          begun.Notify();
        });
    begun.WaitForNotification();
    return stream;
  }

  NoTransport transport_;
  const std::unique_ptr<rpc::ControlPort> network_ =
      rpc::ControlPort::Create({});
  ViewHolder view_;
  ManualClock clock_;
  std::unique_ptr<Node> node_;
};

TEST_F(NodeTest, ACommitQueuedAtTheStopIsAnsweredBeforeTheNodeIsGone) {
  Start();
  const auto stream = BeginStore();
  ASSERT_NE(stream, nullptr);
  const KvShape shape = ShapeOf(Model(), 4);
  const std::vector<std::byte> kv(shape.bytes());
  int answers = 0;
  stream->PutLayers(
      0, KvView(kv.data(), shape, KvStrides::TokenMajor(shape)),
      [&](const absl::Status& encoded) {
        EXPECT_TRUE(encoded.ok()) << encoded;
        transport_.stopping.WaitForNotification();
        stream->Commit([&](const absl::StatusOr<StoreReceipt>&) { ++answers; });
      });
  node_.reset();
  EXPECT_EQ(answers, 1);
}

TEST_F(NodeTest, ALayerIsNotEncodedPastTheStoresDeadline) {
  Start();
  const auto stream = BeginStore();
  ASSERT_NE(stream, nullptr);
  const KvShape shape = ShapeOf(Model(), 4);
  const std::vector<std::byte> kv(shape.bytes());
  clock_.Advance(absl::Seconds(20));
  absl::Status encoded;
  absl::Notification done;
  stream->PutLayers(0, KvView(kv.data(), shape, KvStrides::TokenMajor(shape)),
                    [&](absl::Status status) {
                      encoded = std::move(status);
                      done.Notify();
                    });
  done.WaitForNotification();
  EXPECT_TRUE(absl::IsDeadlineExceeded(encoded)) << encoded;
}

TEST_F(NodeTest, ANodeThatCannotOpenItsDiskSaysWhy) {
  const std::string file = testing::TempDir() + "/kdn-node-test-file";
  std::ofstream(file) << "no directory";
  NodeOptions options = Options();
  options.data_dir = file;
  options.disk_bytes = 64u << 20;
  const auto node = Node::Start(std::move(options), &transport_, network_.get(),
                                &view_, &clock_);
  ASSERT_FALSE(node.ok());
  EXPECT_NE(node.status().message().find(file), std::string::npos)
      << node.status();
  std::filesystem::remove(file);
}

TEST_F(NodeTest, RefusesAMemberListWithoutItself) {
  Start();
  std::vector<placement::MemberSpec> list(1);
  list[0].id = NodeId("n2");
  EXPECT_TRUE(absl::IsInvalidArgument(node_->SetMembers(list)));
  list.emplace_back().id = NodeId("n1");
  EXPECT_TRUE(node_->SetMembers(list).ok());
}

}  // namespace
}  // namespace kdn::actors
