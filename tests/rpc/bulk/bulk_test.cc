#include <gtest/gtest.h>

#include "codec/format/stream_layout.h"
#include "kv/clock.h"
#include "tests/rpc/bulk/fixture.h"

namespace kdn::rpc {
namespace {

// The levels that need no calibration.
constexpr LevelSet kApart =
    LevelSet::All().Without(LevelSet::Of(Level::kArchive));

using BulkTest = BulkFixture;

TEST_F(BulkTest, FetchBringsEveryChunkLayerByLayer) {
  HoldAll();
  auto record = Fetch(FetchOf(chunks_));
  ASSERT_TRUE(record->status.ok()) << record->status;
  std::vector<std::pair<int, int>> layer_major;
  for (int layer = 0; layer < model_.num_layers; ++layer) {
    for (int i = 0; i < 4; ++i) layer_major.emplace_back(layer, i);
  }
  EXPECT_EQ(record->order, layer_major);
  uint64_t bytes = 0;
  for (int i = 0; i < 4; ++i) {
    const RecordingSink::Item& item = record->items[i];
    EXPECT_TRUE(item.verified.ok()) << item.verified;
    EXPECT_EQ(item.index->key(), chunks_[i].ref.key);
    bytes += item.streams.size();
  }
  EXPECT_EQ(transport_meters_->Get("peer_bytes_in"), bytes);
  EXPECT_EQ(server_meters_->Get("peer_bytes_out"), bytes);
  const MetricValues values = transport_meters_->Read();
  EXPECT_EQ(values.histogram("peer_fetch_us").count(), 1u);
  EXPECT_EQ(values.histogram("peer_push_us").count(), 0u);
}

TEST_F(BulkTest, AServerWithoutRoomForAllChunksSendsGroups) {
  HoldAll();
  peer_.set_room(1);
  auto record = Fetch(FetchOf(chunks_));
  ASSERT_TRUE(record->status.ok()) << record->status;
  for (const RecordingSink::Item& item : record->items) {
    EXPECT_EQ(item.layers, model_.num_layers) << item.why;
    EXPECT_TRUE(item.verified.ok()) << item.verified;
  }
}

TEST_F(BulkTest, FetchesDoNotWaitForEachOthersMemoryInACircle) {
  HoldAll();
  peer_.set_room(3);
  std::vector<std::shared_ptr<RecordingSink::Record>> records;
  for (int i = 0; i < 8; ++i) {
    std::vector<TestChunk> chunks = chunks_;
    if (i % 2 == 1) std::reverse(chunks.begin(), chunks.end());
    records.push_back(Begin(FetchOf(chunks)));
  }
  for (auto& record : records) {
    record->done.WaitForNotification();
    EXPECT_TRUE(record->status.ok()) << record->status;
    for (const RecordingSink::Item& item : record->items) {
      EXPECT_EQ(item.layers, model_.num_layers) << item.why;
    }
  }
}

TEST_F(BulkTest, SingleChunkComesInOrderToo) {
  HoldAll(kApart);
  for (const TestChunk& chunk : chunks_) {
    auto record = Fetch(FetchOf({chunk}));
    ASSERT_TRUE(record->status.ok()) << record->status;
    EXPECT_EQ(record->items[0].layers, model_.num_layers);
    EXPECT_TRUE(record->items[0].verified.ok());
    EXPECT_EQ(record->items[0].levels,
              std::vector<Level>(record->items[0].layers, Level::kLossless));
  }
  EXPECT_EQ(server_->counters().connections, 1u) << "the connection is reused";
}

TEST_F(BulkTest, SliceAndLevelAreThoseOfTheRequest) {
  HoldAll(kApart);
  for (const Level level : codec::LevelsOf(kApart)) {
    for (const size_t chunks : {4, 1}) {  // other code reads a single chunk
      delivery::FetchRequest request =
          FetchOf({chunks_.begin(), chunks_.begin() + chunks});
      request.slice = KvSlice{1, 3, 1, 2};
      request.accept = LevelSet::Of(level);
      auto record = Fetch(std::move(request));
      ASSERT_TRUE(record->status.ok()) << record->status;
      for (const RecordingSink::Item& item : record->items) {
        EXPECT_EQ(item.levels, std::vector<Level>(item.layers, level));
        EXPECT_EQ(item.layers, 2);
        EXPECT_TRUE(item.verified.ok()) << Name(level) << item.verified;
      }
    }
  }
}

TEST_F(BulkTest, ALevelComesWithTheLevelsThatItRefines) {
  HoldAll(LevelSet::Of(Level::kBase2).WithRefined());
  size_t coarser = 0;
  for (const Level level : {Level::kBase, Level::kBase1, Level::kBase2}) {
    delivery::FetchRequest request = FetchOf({chunks_[0]});
    request.accept = LevelSet::Of(level);
    auto record = Fetch(std::move(request));
    ASSERT_TRUE(record->status.ok()) << record->status;
    const size_t bytes = record->items[0].streams.size();
    EXPECT_TRUE(record->items[0].verified.ok());
    EXPECT_GT(bytes, coarser) << Name(level);
    coarser = bytes;
  }
}

TEST_F(BulkTest, ABudgetIsSpentOnLevels) {
  HoldAll(LevelSet::Of(Level::kBase2).WithRefined());
  const auto bytes_within = [&](const delivery::SendBudget& budget) {
    delivery::FetchRequest request = FetchOf(chunks_);
    request.budget = budget;
    auto record = Fetch(std::move(request));
    EXPECT_TRUE(record->status.ok()) << record->status;
    uint64_t bytes = 0;
    for (const RecordingSink::Item& item : record->items) {
      EXPECT_EQ(item.recompute, item.layers == 0);
      if (item.recompute) continue;
      EXPECT_TRUE(item.verified.ok()) << item.verified;
      bytes += item.streams.size() + item.index->prefix_bytes();
    }
    EXPECT_LE(bytes, budget.bytes_max);
    return bytes;
  };
  const uint64_t all =
      bytes_within({.bytes_max = delivery::SendBudget::kNoLimit});
  uint64_t before = 0;
  for (const int percent : {0, 40, 60, 80, 100}) {
    const uint64_t bytes = bytes_within({.bytes_max = all * percent / 100});
    EXPECT_GE(bytes, before) << percent;
    before = bytes;
  }
  EXPECT_EQ(before, all);
  EXPECT_EQ(bytes_within({.bytes_max = all, .bytes_per_token_max = 1e-3}), 0u)
      << "recomputing is faster";
  EXPECT_EQ(bytes_within({.bytes_max = all, .too_slow = LevelSet::All()}), 0u)
      << "and faster than decoding";
  const uint64_t at_base = bytes_within(
      {.bytes_max = all,
       .too_slow = LevelSet::Of(Level::kBase2).With(Level::kBase1)});
  EXPECT_GT(at_base, 0u);
  EXPECT_LT(at_base, all);
}

TEST_F(BulkTest, MissFailureAndUnacceptableLevelAreTyped) {
  peer_.Hold(chunks_[0], LevelSet::Of(Level::kLossless));
  peer_.Hold(chunks_[1], LevelSet::Of(Level::kInt8));
  peer_.set_failure(chunks_[2].ref.key, absl::DataLossError("rotten"));
  delivery::FetchRequest request = FetchOf(chunks_);
  request.accept = LevelSet::Of(Level::kLossless);
  auto record = Fetch(std::move(request));
  ASSERT_TRUE(record->status.ok()) << record->status;
  EXPECT_EQ(record->items[0].layers, model_.num_layers);
  EXPECT_TRUE(absl::IsNotFound(record->items[1].why));
  EXPECT_TRUE(absl::IsDataLoss(record->items[2].why));
  EXPECT_TRUE(absl::IsNotFound(record->items[3].why));
}

TEST_F(BulkTest, ACopyThatCannotBeParsedIsReportedWithItsVersion) {
  peer_.HoldJunk(chunks_[0].ref.key);
  peer_.Hold(chunks_[1], LevelSet::Of(Level::kLossless));
  auto record = Fetch(FetchOf({chunks_[0], chunks_[1], chunks_[2]}));
  ASSERT_TRUE(record->status.ok()) << record->status;
  EXPECT_TRUE(absl::IsDataLoss(record->items[0].why));
  EXPECT_EQ(record->items[0].damaged, FakePeer::kVersion);
  EXPECT_EQ(record->items[1].layers, model_.num_layers);
  EXPECT_EQ(record->items[2].damaged, ObjectVersion()) << "a miss";
}

TEST_F(BulkTest, SliceOutsideTheObjectFailsThatChunk) {
  HoldAll();
  delivery::FetchRequest request = FetchOf({chunks_[0]});
  request.slice.layer_end = 9;
  auto record = Fetch(std::move(request));
  EXPECT_TRUE(record->status.ok()) << record->status;
  EXPECT_TRUE(absl::IsInvalidArgument(record->items[0].why));
}

TEST_F(BulkTest, ChunkWithoutRoomIsSkippedAndTheConnectionLives) {
  HoldAll();
  auto record = Fetch(FetchOf(chunks_), /*refuse_all=*/true);
  EXPECT_TRUE(record->status.ok()) << record->status;
  EXPECT_TRUE(record->order.empty());
  EXPECT_TRUE(Fetch(FetchOf(chunks_))->status.ok());
  EXPECT_EQ(server_->counters().connections, 1u);
}

TEST_F(BulkTest, EmptyFetchIsDone) {
  EXPECT_TRUE(Fetch(FetchOf({}))->status.ok());
}

TEST_F(BulkTest, ManyFetchesShareFewConnections) {
  HoldAll();
  std::vector<std::shared_ptr<RecordingSink::Record>> records;
  for (int i = 0; i < 200; ++i) {
    records.push_back(Begin(FetchOf({chunks_[i % 4]})));
  }
  for (auto& record : records) {
    record->done.WaitForNotification();
    EXPECT_TRUE(record->status.ok()) << record->status;
    EXPECT_TRUE(record->items[0].verified.ok());
  }
  EXPECT_LE(server_->counters().connections, 4u);
}

TEST_F(BulkTest, PushIsCommittedOnceAndKnownTheSecondTime) {
  FakePeer source;
  source.Hold(chunks_[0], kApart);
  const storage::ObjectRef object = source.object(chunks_[0].ref.key);
  const absl::Time expires = SteadyNow() + absl::Minutes(3);
  auto receipt = Push(chunks_[0], object, expires);
  ASSERT_TRUE(receipt.ok()) << receipt.status();
  EXPECT_FALSE(receipt->existed);
  EXPECT_NEAR(absl::ToDoubleSeconds(peer_.last_expires() - expires), 0, 5);
  const storage::ObjectRef arrived = peer_.object(chunks_[0].ref.key);
  ASSERT_NE(arrived, nullptr);
  EXPECT_TRUE(arrived->bytes() == object->bytes());
  EXPECT_EQ(transport_meters_->Get("peer_bytes_out"), object->size());
  EXPECT_EQ(server_meters_->Get("peer_bytes_in"), object->size());

  receipt = Push(chunks_[0], object);
  ASSERT_TRUE(receipt.ok()) << receipt.status();
  EXPECT_TRUE(receipt->existed);
  EXPECT_EQ(peer_.last_expires(), absl::InfinitePast());
}

TEST_F(BulkTest, RefusedPushIsTypedAndTheConnectionLives) {
  FakePeer source;
  source.Hold(chunks_[0], kApart);
  const storage::ObjectRef object = source.object(chunks_[0].ref.key);
  BulkServer::Options options{.self = NodeId("b")};
  options.push_bytes_max = object->size() - 1;
  StartServer(options);
  EXPECT_TRUE(absl::IsInvalidArgument(Push(chunks_[0], object).status()));
  EXPECT_EQ(peer_.commits(), 0);
  HoldAll();
  EXPECT_TRUE(Fetch(FetchOf(chunks_))->status.ok());
  EXPECT_EQ(server_->counters().connections, 1u);
}

TEST_F(BulkTest, FullArenaRefusesAPush) {
  FakePeer source;
  source.Hold(chunks_[0], kApart);
  FakePeer full(storage::Arena::kPageBytes);
  auto server = BulkServer::Start({.self = NodeId("b")}, &full);
  ASSERT_TRUE(server.ok());
  port_ = (*server)->port();
  EXPECT_FALSE(Push(chunks_[0], source.object(chunks_[0].ref.key)).ok());
  EXPECT_EQ(full.commits(), 0);
  transport_->Stop();
}

TEST_F(BulkTest, DamagedPushIsRefusedByTheReceiver) {
  FakePeer source;
  source.Hold(chunks_[0], kApart);
  const storage::ObjectRef object = source.object(chunks_[0].ref.key);
  const_cast<std::byte*>(object->bytes().data())[object->size() - 1] ^=
      std::byte{1};
  EXPECT_TRUE(absl::IsDataLoss(Push(chunks_[0], object).status()));
  EXPECT_EQ(peer_.object(chunks_[0].ref.key), nullptr);
}

TEST_F(BulkTest, ARefusedHelloIsNotDamage) {
  HoldAll();
  delivery::FetchRequest request = FetchOf(chunks_);
  request.peer = NodeId("c");  // at the address of b
  const absl::Status status = Fetch(std::move(request))->status;
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
}

TEST_F(BulkTest, PortInUseNamesTheAddress) {
  auto second =
      BulkServer::Start({.self = NodeId("c"), .port = server_->port()}, &peer_);
  EXPECT_TRUE(absl::IsAlreadyExists(second.status())) << second.status();
}

}  // namespace
}  // namespace kdn::rpc
