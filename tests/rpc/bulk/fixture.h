#ifndef KDN_TESTS_RPC_BULK_FIXTURE_H_
#define KDN_TESTS_RPC_BULK_FIXTURE_H_

#include <memory>
#include <utility>
#include <vector>

#include "kv/clock.h"
#include "rpc/bulk/client.h"
#include "rpc/bulk/server.h"
#include "tests/rpc/bulk/fake_peer.h"
#include "tests/rpc/faulty_proxy.h"

namespace kdn::rpc {

// A bulk server of node "b", and a transport of node "a" that connects to
// port_: the server's port, unless a test puts a proxy between them.
class BulkFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int seed = 0; seed < 4; ++seed) {
      chunks_.push_back(MakeChunk(ns_, model_, 1000 * seed, 40));
    }
    StartServer(BulkServer::Options{.self = NodeId("b")});
    StartTransport(BulkTransport::Options{.self = NodeId("a"), .resolve = {}});
  }
  void StartServer(BulkServer::Options options) {
    server_ = nullptr;
    server_meters_ = options.meters;
    auto server = BulkServer::Start(std::move(options), &peer_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    port_ = server_->port();
  }
  void StartTransport(BulkTransport::Options options) {
    options.resolve = [this](const NodeId&) -> absl::StatusOr<std::string> {
      return absl::StrCat("127.0.0.1:", port_.load());
    };
    transport_meters_ = options.meters;
    transport_ = BulkTransport::Start(std::move(options));
  }
  void HoldAll(LevelSet levels = LevelSet::Of(Level::kLossless)) {
    for (const TestChunk& chunk : chunks_) peer_.Hold(chunk, levels);
  }
  delivery::FetchRequest FetchOf(const std::vector<TestChunk>& chunks) const {
    std::vector<ChunkRef> refs;
    for (const TestChunk& chunk : chunks) refs.push_back(chunk.ref);
    return delivery::FetchRequest{
        NodeId("b"),     ns_,
        std::move(refs), WholeOf(model_),
        LevelSet::All(), SteadyNow() + absl::Seconds(20)};
  }
  std::shared_ptr<RecordingSink::Record> Begin(delivery::FetchRequest request,
                                               bool refuse_all = false) {
    auto record = std::make_shared<RecordingSink::Record>();
    record->refuse_all = refuse_all;
    auto sink = std::make_unique<RecordingSink>(record, request.slice,
                                                request.chunks.size());
    last_fetch_ = transport_->Fetch(std::move(request), std::move(sink));
    return record;
  }
  std::shared_ptr<RecordingSink::Record> Fetch(delivery::FetchRequest request,
                                               bool refuse_all = false) {
    auto record = Begin(std::move(request), refuse_all);
    record->done.WaitForNotification();
    return record;
  }
  absl::StatusOr<delivery::PushReceipt> Push(
      const TestChunk& chunk, storage::ObjectRef object,
      absl::Time expires = absl::InfinitePast(),
      absl::Duration timeout = absl::Seconds(20)) {
    absl::Notification done;
    absl::StatusOr<delivery::PushReceipt> receipt;
    transport_->Push({.peer = NodeId("b"),
                      .ref = chunk.ref,
                      .object = std::move(object),
                      .expires = expires,
                      .deadline = SteadyNow() + timeout},
                     [&](absl::StatusOr<delivery::PushReceipt> answer) {
                       receipt = std::move(answer);
                       done.Notify();
                     });
    done.WaitForNotification();
    return receipt;
  }

  const Namespace ns_ = *Namespace::Parse("tenant-a");
  const ModelSpec model_ = TestModel();
  std::vector<TestChunk> chunks_;
  delivery::FetchId last_fetch_;
  FakePeer peer_;
  std::atomic<uint16_t> port_{0};
  std::shared_ptr<Meters> server_meters_;
  std::shared_ptr<Meters> transport_meters_;
  std::unique_ptr<BulkServer> server_;
  std::unique_ptr<BulkTransport> transport_;
};

}  // namespace kdn::rpc

#endif  // KDN_TESTS_RPC_BULK_FIXTURE_H_
