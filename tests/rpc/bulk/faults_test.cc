#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "kv/clock.h"
#include "kv/log.h"
#include "tests/rpc/bulk/fixture.h"

namespace kdn::rpc {
namespace {

class BulkFaultsTest : public BulkFixture {
 protected:
  // Puts a proxy with a fault between transport and server.
  void Break(FaultyProxy::Fault fault) {
    proxy_ = std::make_unique<FaultyProxy>(server_->port(), fault);
    port_ = proxy_->port();
  }
  void TearDown() override {
    transport_ = nullptr;
    proxy_ = nullptr;
  }
  std::unique_ptr<FaultyProxy> proxy_;
};

TEST_F(BulkFaultsTest, FlippedBitIsSeenByTheReceiver) {
  HoldAll();
  const uint64_t object_bytes = peer_.object(chunks_[0].ref.key)->size();
  // Well inside the streams: behind hello, item frame and prefix.
  Break({.flip_bit_at = object_bytes - 1000});
  auto record = Fetch(FetchOf({chunks_[0]}));
  EXPECT_TRUE(record->status.ok()) << record->status;
  EXPECT_TRUE(absl::IsDataLoss(record->items[0].verified));
}

TEST_F(BulkFaultsTest, FlippedBitAnywhereNeverPassesUnseen) {
  HoldAll();
  const uint64_t all = peer_.object(chunks_[0].ref.key)->size() + 400;
  for (uint64_t at = 0; at < all; at += 97) {
    Break({.flip_bit_at = at});
    StartTransport({.self = NodeId("a"), .resolve = {}});
    delivery::FetchRequest request = FetchOf({chunks_[0]});
    request.deadline = SteadyNow() + absl::Milliseconds(500);
    auto record = Fetch(std::move(request));
    const RecordingSink::Item& item = record->items[0];
    // A flip in padding or in the tier is harmless. A check finds any other.
    if (record->status.ok() && item.why.ok() && item.verified.ok()) {
      ASSERT_EQ(item.layers, model_.num_layers) << "bit flipped at " << at;
      EXPECT_EQ(item.index->key(), chunks_[0].ref.key);
    }
    transport_ = nullptr;
  }
}

TEST_F(BulkFaultsTest, CutConnectionFailsOnlyItsRequest) {
  HoldAll();
  Break({.cut_at = peer_.object(chunks_[0].ref.key)->size() / 2});
  auto record = Fetch(FetchOf({chunks_[0]}));
  EXPECT_TRUE(absl::IsUnavailable(record->status)) << record->status;
  EXPECT_LT(record->items[0].layers, model_.num_layers);
  port_ = server_->port();
  EXPECT_TRUE(Fetch(FetchOf({chunks_[0]}))->status.ok());
}

TEST_F(BulkFaultsTest, StalledPeerEndsByTheDeadline) {
  HoldAll();
  Break({.stall_at = 2000});
  delivery::FetchRequest request = FetchOf({chunks_[0]});
  const absl::Time deadline = SteadyNow() + absl::Milliseconds(150);
  request.deadline = deadline;
  auto record = Fetch(std::move(request));
  EXPECT_TRUE(absl::IsDeadlineExceeded(record->status)) << record->status;
  EXPECT_GE(SteadyNow(), deadline);
  EXPECT_LT(SteadyNow(), deadline + absl::Seconds(10));
}

TEST_F(BulkFaultsTest, PendingRequestsToADeadPeerFailAtOnce) {
  peer_.set_silent(true);
  auto first = Begin(FetchOf({chunks_[0]}));
  auto second = Begin(FetchOf({chunks_[1]}));
  ASSERT_TRUE(Eventually([&] { return server_->counters().connections == 2; }));
  const absl::Time began = SteadyNow();
  transport_->FailPeer(NodeId("b"));
  first->done.WaitForNotification();
  second->done.WaitForNotification();
  EXPECT_TRUE(absl::IsUnavailable(first->status)) << first->status;
  EXPECT_TRUE(absl::IsUnavailable(second->status)) << second->status;
  EXPECT_LT(SteadyNow() - began, absl::Seconds(10));
  peer_.set_silent(false);
  HoldAll();
  EXPECT_TRUE(Fetch(FetchOf({chunks_[0]}))->status.ok());
}

TEST_F(BulkFaultsTest, ACancelledFetchEndsAtOnceAndThePeerStopsSending) {
  HoldAll();
  Break({.stall_at = 2000});
  auto record = Begin(FetchOf(chunks_));
  ASSERT_TRUE(
      Eventually([&] { return server_meters_->Get("peer_bytes_out") > 0; }));
  const absl::Time began = SteadyNow();
  transport_->CancelFetch(last_fetch_);
  record->done.WaitForNotification();
  EXPECT_TRUE(absl::IsCancelled(record->status)) << record->status;
  EXPECT_LT(SteadyNow() - began, absl::Seconds(10));
  transport_->CancelFetch(last_fetch_);  // it has ended
  port_ = server_->port();
  EXPECT_TRUE(Fetch(FetchOf({chunks_[0]}))->status.ok());
}

TEST_F(BulkFaultsTest, AFetchThatWaitsForAConnectionIsCancelledToo) {
  peer_.set_silent(true);
  StartTransport({.self = NodeId("a"),
                  .connections_per_peer_max = {1, 1, 1},
                  .resolve = {}});
  auto first = Begin(FetchOf({chunks_[0]}));
  const delivery::FetchId first_fetch = last_fetch_;
  first->begun.WaitForNotification();
  auto waiting = Begin(FetchOf({chunks_[1]}));
  transport_->CancelFetch(last_fetch_);
  waiting->done.WaitForNotification();
  EXPECT_TRUE(absl::IsCancelled(waiting->status)) << waiting->status;
  EXPECT_FALSE(waiting->begun.HasBeenNotified()) << "it never had a connection";
  EXPECT_FALSE(first->done.HasBeenNotified());
  transport_->CancelFetch(first_fetch);
  first->done.WaitForNotification();
}

TEST_F(BulkFaultsTest, SilentServiceIsAFailureOfTheChunkByTheDeadline) {
  peer_.set_silent(true);
  delivery::FetchRequest request = FetchOf({chunks_[0]});
  request.deadline = SteadyNow() + absl::Milliseconds(100);
  auto record = Fetch(std::move(request));
  EXPECT_TRUE(absl::IsDeadlineExceeded(record->status) ||
              absl::IsDeadlineExceeded(record->items[0].why));
}

TEST_F(BulkFaultsTest, ServerKilledMidTransferIsUnavailable) {
  HoldAll();
  Break({.stall_at = 2000});
  auto record = Begin(FetchOf({chunks_[0]}));
  ASSERT_TRUE(
      Eventually([&] { return server_meters_->Get("peer_bytes_out") > 0; }));
  server_ = nullptr;
  record->done.WaitForNotification();
  EXPECT_TRUE(absl::IsUnavailable(record->status)) << record->status;
}

TEST_F(BulkFaultsTest, RestartedServerIsReachedAgain) {
  HoldAll();
  EXPECT_TRUE(Fetch(FetchOf({chunks_[0]}))->status.ok());
  StartServer({.self = NodeId("b")});
  EXPECT_TRUE(Fetch(FetchOf({chunks_[0]}))->status.ok());
}

TEST_F(BulkFaultsTest, WrongNodeIsRefusedAtHelloAndEachSideLogsItOnce) {
  absl::Mutex mutex;
  std::vector<std::string> sites;
  SetLogSink([&](LogSeverity, absl::string_view site, absl::string_view) {
    absl::MutexLock lock(&mutex);
    sites.emplace_back(site);
  });
  StartServer({.self = NodeId("someone-else")});
  auto record = Fetch(FetchOf({chunks_[0]}));
  EXPECT_FALSE(record->status.ok());
  EXPECT_TRUE(
      Eventually([&] { return server_meters_->Get("peer_refused") == 1; }));
  transport_ = nullptr;
  server_ = nullptr;
  SetLogSink(nullptr);
  EXPECT_THAT(sites,
              testing::UnorderedElementsAre("bulk.hello", "bulk.request"));
}

TEST_F(BulkFaultsTest, NodesOfTwoClustersExchangeNoData) {
  HoldAll();
  const auto of_cluster = [](const char* cluster, const char* node) {
    return [cluster, node](const NodeId& peer) {
      placement::Introduction all = IntroduceByNameOnly(NodeId(node))(peer);
      all.cluster = cluster;
      return all;
    };
  };
  StartServer({.self = NodeId("b"), .introduce = of_cluster("test", "b")});
  StartTransport({.self = NodeId("a"),
                  .introduce = of_cluster("prod", "a"),
                  .resolve = {}});
  EXPECT_TRUE(absl::IsUnavailable(Fetch(FetchOf({chunks_[0]}))->status));
  EXPECT_FALSE(Push(chunks_[0], nullptr).ok());
  EXPECT_EQ(peer_.commits(), 0);
  EXPECT_TRUE(
      Eventually([&] { return server_meters_->Get("peer_refused") == 2; }));
  StartTransport({.self = NodeId("a"),
                  .introduce = of_cluster("test", "a"),
                  .resolve = {}});
  EXPECT_TRUE(Fetch(FetchOf({chunks_[0]}))->status.ok());
}

TEST_F(BulkFaultsTest, NobodyThereIsUnavailable) {
  server_ = nullptr;
  auto record = Fetch(FetchOf({chunks_[0]}));
  EXPECT_TRUE(absl::IsUnavailable(record->status)) << record->status;
  EXPECT_TRUE(record->begun.HasBeenNotified()) << "it dialled the peer";
  EXPECT_FALSE(Push(chunks_[0], nullptr).ok());
}

TEST_F(BulkFaultsTest, PushesThatWaitForRoomDoNotHoldUpFetches) {
  HoldAll();
  peer_.set_reserving(false);
  const int many = 3 * BulkTransport::Options().connections_per_peer_max.write;
  std::atomic<int> pushed{0};
  for (int i = 0; i < many; ++i) {
    transport_->Push(
        {.peer = NodeId("b"),
         .ref = chunks_[0].ref,
         .object = peer_.object(chunks_[0].ref.key),
         .expires = absl::InfinitePast(),
         .deadline = SteadyNow() + absl::Seconds(20)},
        [&](const absl::StatusOr<delivery::PushReceipt>&) { ++pushed; });
  }
  EXPECT_TRUE(Fetch(FetchOf(chunks_))->status.ok());
  EXPECT_EQ(pushed, 0);
  transport_->Stop();
  EXPECT_EQ(pushed, many);
}

TEST_F(BulkFaultsTest, WaitingRequestsAreBounded) {
  peer_.set_silent(true);
  StartTransport({.self = NodeId("a"),
                  .connections_per_peer_max = {1, 1, 1},
                  .waiting_max = 2,
                  .resolve = {}});
  std::vector<std::shared_ptr<RecordingSink::Record>> records;
  for (int i = 0; i < 4; ++i) records.push_back(Begin(FetchOf({chunks_[0]})));
  records[3]->done.WaitForNotification();
  EXPECT_TRUE(absl::IsResourceExhausted(records[3]->status));
  transport_->Stop();
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(records[i]->done.HasBeenNotified());
    EXPECT_TRUE(absl::IsUnavailable(records[i]->status));
  }
  auto late = Fetch(FetchOf({chunks_[0]}));
  EXPECT_TRUE(absl::IsUnavailable(late->status));
}

}  // namespace
}  // namespace kdn::rpc
