#include "rpc/wire.h"

#include <capnp/message.h>
#include <capnp/schema.h>
#include <gtest/gtest.h>
#include <kj/debug.h>

#include <set>

#include "rpc/api.h"
#include "rpc/client/wire.h"
#include "rpc/gateway/wire.h"
#include "tests/rpc/gateway/fixture.h"

namespace kdn::rpc {
namespace {

TEST(WireTest, EveryStatusCodeComesBack) {
  for (int code = 0; code <= 16; ++code) {
    const auto absl_code = static_cast<absl::StatusCode>(code);
    EXPECT_EQ(static_cast<int>(ToWire(absl_code)), code);
    EXPECT_EQ(FromWire(ToWire(absl_code)), absl_code);
    capnp::MallocMessageBuilder message;
    auto status = message.initRoot<wire::Status>();
    ToWire(absl::Status(absl_code, "chunk 7"), status);
    EXPECT_EQ(FromWire(status.asReader()), absl::Status(absl_code, "chunk 7"));
  }
  EXPECT_EQ(FromWire(static_cast<wire::Code>(99)), absl::StatusCode::kUnknown);
}

TEST(WireTest, ExceptionsBecomeCodes) {
  EXPECT_TRUE(
      absl::IsUnavailable(FromException(KJ_EXCEPTION(DISCONNECTED, "gone"))));
  EXPECT_TRUE(absl::IsResourceExhausted(
      FromException(KJ_EXCEPTION(OVERLOADED, "too much"))));
  EXPECT_TRUE(absl::IsUnimplemented(
      FromException(KJ_EXCEPTION(UNIMPLEMENTED, "what"))));
  EXPECT_TRUE(absl::IsInternal(FromException(KJ_EXCEPTION(FAILED, "broken"))));
}

TEST(WireTest, ModelComesBackWhole) {
  ModelSpec model = TestModel();
  model.dtype = Dtype::kFp16;
  model.rope.theta = 5e5;
  model.rope.pairing = RopePairing::kGptJ;
  model.rope.scaling = RopeScaling::kLlama3;
  model.rope.factor = 8;
  model.rope.low_freq_factor = 1.5;
  model.rope.high_freq_factor = 4.5;
  model.rope.original_max_position = 8192;
  model.weights_digest = std::string("raw\0digest", 10);
  capnp::MallocMessageBuilder message;
  auto out = message.initRoot<wire::ModelSpec>();
  ToWire(model, out);
  auto back = FromWire(out.asReader());
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(*back, model);
  EXPECT_EQ(FingerprintOf(*back), FingerprintOf(model));
  out.getRope().setScaling(static_cast<wire::RopeScaling>(40));
  EXPECT_TRUE(absl::IsUnimplemented(FromWire(out.asReader()).status()));
}

TEST(WireTest, DefaultsOfRopeFieldsAreThoseOfRopeSpec) {
  capnp::MallocMessageBuilder message;
  auto out = message.initRoot<wire::ModelSpec>();
  ModelSpec model = TestModel();
  ToWire(model, out);
  const auto rope = model.rope;
  auto fresh = out.initRope();
  fresh.setRotaryDim(static_cast<uint32_t>(rope.rotary_dim));
  EXPECT_EQ(FromWire(out.asReader())->rope, rope);
}

TEST(WireTest, SliceIsInsideTheModel) {
  const ModelSpec model = TestModel();
  capnp::MallocMessageBuilder message;
  auto out = message.initRoot<wire::Slice>();
  EXPECT_EQ(*FromWire(out.asReader(), model), WholeOf(model));
  ToWire(KvSlice{1, 2, 0, 1}, out);
  EXPECT_EQ(*FromWire(out.asReader(), model), (KvSlice{1, 2, 0, 1}));
  out.setHeadEnd(4000000000u);
  EXPECT_TRUE(
      absl::IsInvalidArgument(FromWire(out.asReader(), model).status()));
}

TEST(WireTest, TheKeyOfAChunkDecidesItsPlacementWhateverACallerClaims) {
  const ChunkRef ref = MakeChunk(*Namespace::Parse("t"), TestModel(), 1).ref;
  capnp::MallocMessageBuilder message;
  auto out = message.initRoot<wire::ChunkRef>();
  ToWire(ref, out);
  EXPECT_FALSE(out.hasPlacement());
  EXPECT_EQ(*FromWire(out.asReader()), ref);
  out.setPlacement(
      ToWire(MakeChunk(*Namespace::Parse("t"), TestModel(), 2).ref.key));
  EXPECT_EQ(*FromWire(out.asReader()), ref);
  out.initKey(31);
  EXPECT_TRUE(absl::IsInvalidArgument(FromWire(out.asReader()).status()));
}

TEST(WireTest, TimeoutsAreBounded) {
  EXPECT_EQ(*TimeoutFromWire(0), kDefaultTimeout);
  EXPECT_EQ(*TimeoutFromWire(1), absl::Milliseconds(1));
  EXPECT_EQ(*TimeoutFromWire(600000), kTimeoutMax);
  EXPECT_TRUE(absl::IsInvalidArgument(TimeoutFromWire(600001).status()));
  EXPECT_EQ(TimeoutToWire(absl::Nanoseconds(1)), 1u);
  EXPECT_EQ(TimeoutToWire(-absl::Seconds(3)), 1u);
  EXPECT_EQ(TimeoutToWire(absl::InfiniteDuration()), 600000u);
}

TEST(WireTest, EveryLevelComesBack) {
  std::set<wire::Level> seen;
  for (const Level level : kLevelsByQuality) {
    EXPECT_EQ(FromWire(ToWire(level)), level) << Name(level);
    // Level masks rely on equal numbers.
    EXPECT_EQ(static_cast<int>(ToWire(level)), static_cast<int>(level));
    seen.insert(ToWire(level));
  }
  EXPECT_EQ(seen.size(),
            capnp::Schema::from<wire::Level>().getEnumerants().size());
  EXPECT_EQ(FromWire(static_cast<wire::Level>(99)), Level::kLossless);
}

TEST(WireTest, LevelsTtlsAndPositionsAreBounded) {
  const LevelSet lossless = LevelSet::Of(Level::kLossless);
  EXPECT_EQ(*LevelsFromWire(0, lossless), lossless);
  for (uint8_t bits = 1; bits < 64; ++bits) {
    EXPECT_EQ(LevelsFromWire(bits, lossless)->bits(), bits);
  }
  EXPECT_FALSE(LevelsFromWire(64, lossless).ok());
  EXPECT_FALSE(LevelsFromWire(0x81, lossless).ok());
  EXPECT_TRUE(TtlFromWire(0, true).ok());
  EXPECT_FALSE(TtlFromWire(0, false).ok());
  EXPECT_FALSE(TtlFromWire(UINT64_MAX, true).ok());
  EXPECT_TRUE(CheckPositions({0, 5}).ok());
  EXPECT_FALSE(CheckPositions({}).ok());
  EXPECT_FALSE(CheckPositions({3, -1}).ok());
  EXPECT_FALSE(CheckPositions(std::vector<int32_t>(4097)).ok());
}

TEST(WireTest, OutcomesAndReceiptsComeBack) {
  capnp::MallocMessageBuilder message;
  ChunkOutcome hit;
  hit.kind = OutcomeKind::kHit;
  hit.source = NodeId("n2");
  hit.tier = Tier::kDisk;
  hit.version = ObjectVersion(77);
  hit.wire_bytes = 1234;
  for (const Level level : kLevelsByQuality) {
    hit.level = level;
    auto out = message.initRoot<wire::ChunkOutcome>();
    FillOutcome(hit, out);
    const ChunkOutcome back = FromWire(out.asReader());
    EXPECT_EQ(back.kind, OutcomeKind::kHit);
    EXPECT_EQ(back.level, level);
    EXPECT_EQ(back.source, NodeId("n2"));
    EXPECT_EQ(back.tier, Tier::kDisk);
    EXPECT_EQ(back.version, ObjectVersion(77));
    EXPECT_EQ(back.wire_bytes, 1234u);
  }

  auto receipt = message.initRoot<wire::StoreReceipt>();
  FillReceipt({.key = ChunkKey(),
               .version = ObjectVersion(3),
               .existed = true,
               .bytes = 9,
               .holders = {NodeId("a"), NodeId("b")}},
              receipt);
  const auto received = FromWire(receipt.asReader());
  ASSERT_TRUE(received.ok());
  EXPECT_TRUE(received->existed);
  EXPECT_EQ(received->holders.size(), 2u);
  receipt.initKey(3);
  EXPECT_TRUE(absl::IsDataLoss(FromWire(receipt.asReader()).status()));
}

NodeStatus OverTheWire(const NodeStatus& status) {
  capnp::MallocMessageBuilder message;
  auto out = message.initRoot<wire::NodeStatus>();
  FillNodeStatus(status, out);
  return FromWire(out.asReader());
}

TEST(WireTest, MetricsKeepNamesAndValues) {
  NodeStatus status{NodeId("n"), "host:7303", true, {}};
  uint64_t next = 1;
  for (size_t i = 0; i < kMetricCount; ++i) {
    const Metric metric = Metric::At(i);
    if (metric.info().type == MetricType::kHistogram) {
      status.metrics.histogram(metric).Record(next++ * 1000);
    } else {
      status.metrics[metric] = next++;
    }
  }
  const NodeStatus back = OverTheWire(status);
  EXPECT_EQ(back.id, status.id);
  EXPECT_EQ(back.gateway_address, status.gateway_address);
  EXPECT_TRUE(back.alive);
  EXPECT_EQ(back.metrics, status.metrics);
}

TEST(WireTest, MetricsOfANewerNodeAreKept) {
  NodeStatus status;
  MetricSample times{"newer_us", MetricType::kHistogram, 0, {}};
  times.histogram.Record(100);
  status.metrics.Add(times);
  status.metrics.Add({"newer", MetricType::kCounter, 7, {}});
  EXPECT_EQ(OverTheWire(status).metrics, status.metrics);
}

TEST(WireTest, ATypeOfANewerNodeIsAGauge) {
  capnp::MallocMessageBuilder message;
  auto out = message.initRoot<wire::Metric>();
  out.setName("newer");
  out.setType(static_cast<wire::MetricType>(7));
  out.setValue(3);
  const MetricSample expected{"newer", MetricType::kGauge, 3, {}};
  EXPECT_EQ(FromWire(out.asReader()), expected);
}

}  // namespace
}  // namespace kdn::rpc
