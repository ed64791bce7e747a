// FetchFromMemory and RemoteFetch with real objects, from encoded bytes to an
// engine's memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <numeric>
#include <random>

#include "absl/synchronization/notification.h"
#include "codec/encoder.h"
#include "transfer/local_fetch.h"
#include "transfer/remote_fetch.h"

namespace kdn::transfer {
namespace {

constexpr int kTokens = 20;

ModelSpec Model() {
  ModelSpec spec;
  spec.num_layers = 3;
  spec.num_kv_heads = 2;
  spec.head_dim = 16;
  spec.rope.rotary_dim = 16;
  return spec;
}

class FetchDeliveryTest : public testing::Test {
 protected:
  FetchDeliveryTest() : pool_(2), arena_(*storage::Arena::Create(1u << 20)) {
    std::mt19937 random(8);
    const KvShape shape = ShapeOf(Model(), kTokens);
    kv_.resize(shape.bytes());
    for (std::byte& b : kv_) b = static_cast<std::byte>(random());
    positions_.resize(kTokens);
    std::iota(positions_.begin(), positions_.end(), 0);
    object_ = Encode(LevelSet::Of(Level::kLossless));
    out_.resize(shape.bytes());
  }

  // Fills the KV with finite values, which every level can encode.
  void FillFinite() {
    std::mt19937 random(9);
    std::normal_distribution<float> normal;
    std::vector<float> values(kv_.size() / SizeOf(Model().dtype));
    for (float& value : values) value = normal(random);
    StoreFloats(Model().dtype, values.data(), values.size(), kv_.data());
  }

  std::shared_ptr<storage::ArenaBlock> Encode(
      LevelSet levels,
      std::shared_ptr<const codec::Calibration> calibration = nullptr) {
    const KvShape shape = ShapeOf(Model(), kTokens);
    codec::ObjectHeader header{
        ChunkIdentity{FingerprintOf(Model()), ns_, ChunkKey(),
                      std::string(kRawVariant),
                      std::vector<int32_t>(kTokens, 5)},
        shape,
        Model().rope,
        positions_,
        levels,
        codec::CalibrationId()};
    if (calibration == nullptr) {
      calibration = calibrations_.ForModel(header.identity.fingerprint,
                                           codec::GeometryOf(shape));
    }
    key_ = KeyOf(header);
    auto block = *arena_->Allocate(codec::ObjectBytesMax(header));
    auto encoder = codec::ObjectEncoder::Create(header, std::move(calibration),
                                                block->bytes());
    const KvView view(kv_.data(), shape, KvStrides::HeadMajor(shape));
    for (int layer = 0; layer < shape.layers; ++layer) {
      EXPECT_TRUE(encoder->EncodeLayer(view.Layer(layer)).ok());
    }
    const auto finished = encoder->Finish();
    EXPECT_TRUE(finished.ok());
    block->ShrinkTo(finished->bytes);
    version_ = finished->version;
    return block;
  }

  std::shared_ptr<RetrieveContext> Context(const ChunkKey& key,
                                           LevelSet accept = LevelSet::All()) {
    const KvShape shape = ShapeOf(Model(), kTokens);
    return ContextTo(
        MutableKvView(out_.data(), shape, KvStrides::HeadMajor(shape)), key,
        accept);
  }

  std::shared_ptr<RetrieveContext> ContextTo(const KvDestination& destination,
                                             const ChunkKey& key,
                                             LevelSet accept) {
    delivery::RetrieveRequest request{
        std::make_shared<const ModelSpec>(Model()),
        ns_,
        {},
        WholeOf(Model()),
        accept,
        absl::InfiniteFuture()};
    request.prefill_tokens_per_second = target_.prefill_tokens_per_second;
    request.chunks.push_back(
        delivery::RetrieveChunk{ChunkRef{key}, positions_, destination});
    return std::make_shared<RetrieveContext>(
        std::move(request),
        [this](int, int layer) {
          absl::MutexLock lock(&mutex_);
          ++announced_[layer];
        },
        DecodeMeans{&calibrations_, &decoding_, &real_clock_});
  }

  RemoteFetch::Link Link() {
    return {NodeId("b"), target_, &links_, &health_, &clock_};
  }

  delivery::AttemptResult FetchHere(
      std::shared_ptr<RetrieveContext> context,
      std::optional<ObjectVersion> pinned = std::nullopt) {
    storage::ObjectInfo info;
    info.version = version_;
    delivery::AttemptResult result;
    absl::Notification done;
    FetchFromMemory(std::move(context), 0, {info, object_}, pinned, &pool_,
                    pool_.NextRequester(), [&](delivery::AttemptResult r) {
                      result = std::move(r);
                      done.Notify();
                    });
    done.WaitForNotification();
    return result;
  }

  // Does what a transport does: delivers `layers` layers and then reports a
  // broken connection, unless these were all layers.
  delivery::AttemptResult Receive(std::shared_ptr<RetrieveContext> context,
                                  std::optional<ObjectVersion> pinned,
                                  int layers,
                                  const std::vector<Level>& levels =
                                      std::vector<Level>(3, Level::kLossless)) {
    delivery::AttemptResult result;
    absl::Notification done;
    const delivery::RetrieveRequest request = context->request;
    {
      RemoteFetch fetch(
          std::move(context), {{0, pinned}}, Link(), arena_.get(), &pool_,
          pool_.NextRequester(), [&](int, uint64_t bytes) { size_ = bytes; },
          [&](int, delivery::AttemptResult r) {
            scratch_at_end_ = arena_->used_bytes();
            result = std::move(r);
            done.Notify();
          });
      fetch.OnBegin();
      const auto index =
          codec::ObjectIndex::Parse(object_->bytes(), object_->size());
      EXPECT_TRUE(index.ok()) << index.status();
      uint64_t stream_bytes = 0;
      for (int layer = 0; layer < 3; ++layer) {
        stream_bytes += BytesOf(*index, levels[layer], layer);
      }
      EXPECT_LE(stream_bytes, FetchBytesMax(request));
      const auto into =
          fetch.OnHit(0, *index, levels, Tier::kMemory, stream_bytes);
      EXPECT_TRUE(into.ok()) << into.status();
      EXPECT_GE(size_, stream_bytes);
      EXPECT_LE(size_, FetchBytesMax(request));
      size_t at = 0;
      for (int layer = 0; layer < layers; ++layer) {
        const size_t begin = at;
        for (const codec::ByteRange& range :
             index->LayerRanges(levels[layer], layer, 0, 2)) {
          std::memcpy(into->data() + at, object_->bytes().data() + range.offset,
                      range.bytes);
          at += range.bytes;
        }
        fetch.OnLayer(0, layer, into->subspan(begin, at - begin));
      }
      {  // the end of a failed try cancels the layers that are not decoded yet
        absl::MutexLock lock(&mutex_);
        const auto announced = [&] {
          return announced_.size() >= static_cast<size_t>(layers);
        };
        EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&announced),
                                            absl::Seconds(10)));
      }
      fetch.OnDone(layers == 3 ? absl::OkStatus()
                               : absl::UnavailableError("cut"));
      done.WaitForNotification();
    }
    return result;
  }

  // The bytes of the first `layers` layers, lossless.
  uint64_t LayersBytes(int layers) const {
    const auto index =
        codec::ObjectIndex::Parse(object_->bytes(), object_->size());
    uint64_t bytes = 0;
    for (int layer = 0; layer < layers; ++layer) {
      bytes += BytesOf(*index, Level::kLossless, layer);
    }
    return bytes;
  }
  static uint64_t BytesOf(const codec::ObjectIndex& index, Level level,
                          int layer) {
    uint64_t bytes = 0;
    for (const codec::ByteRange& range :
         index.LayerRanges(level, layer, 0, 2)) {
      bytes += range.bytes;
    }
    return bytes;
  }

  bool IsFailing(absl::Time now) const {
    const delivery::PeerGrades grades = health_.GradesAt(now);
    const auto it = grades.find(NodeId("b"));
    return it != grades.end() && it->second.is_failing;
  }

  const Namespace ns_ = *Namespace::Parse("t");
  // A clock that advances by a second each time it is read.
  class SteppingClock final : public Clock {
   public:
    // Does not advance.
    absl::Time Last() const {
      absl::MutexLock lock(&mutex_);
      return now_;
    }
    absl::Time Now() const override {
      absl::MutexLock lock(&mutex_);
      return now_ = now_ + absl::Seconds(1);
    }
    absl::Time WallNow() const override { return Now(); }

   private:
    mutable absl::Mutex mutex_;
    mutable absl::Time now_ ABSL_GUARDED_BY(mutex_) = absl::UnixEpoch();
  };

  codec::CalibrationSet calibrations_;
  SteppingClock clock_;
  const RealClock real_clock_;
  DecodeBook decoding_{2};
  LinkBook links_;
  HealthBook health_;
  delivery::DeliveryTarget target_;
  WorkPool pool_;
  std::shared_ptr<storage::Arena> arena_;
  std::vector<std::byte> kv_;
  std::vector<int32_t> positions_;
  std::vector<std::byte> out_;
  std::shared_ptr<storage::ArenaBlock> object_;
  ChunkKey key_;
  ObjectVersion version_;
  uint64_t size_ = 0;          // bytes of the window that the last try took
  size_t scratch_at_end_ = 0;  // bytes in use when the last try ended
  absl::Mutex mutex_;
  std::map<int, int> announced_;
};

TEST_F(FetchDeliveryTest, AChunkInMemoryComesBitForBitAndIsAnnouncedOnce) {
  const delivery::AttemptResult result = FetchHere(Context(key_));
  EXPECT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(out_, kv_);
  EXPECT_EQ(announced_, (std::map<int, int>{{0, 1}, {1, 1}, {2, 1}}));
  EXPECT_EQ(result.version, version_);
  EXPECT_EQ(result.wire_bytes, 0u);
}

TEST_F(FetchDeliveryTest, AnotherChunkOrLevelOrVersionIsNotDelivered) {
  EXPECT_TRUE(absl::IsDataLoss(FetchHere(Context(ChunkKey())).status));
  EXPECT_TRUE(absl::IsNotFound(
      FetchHere(Context(key_, LevelSet::Of(Level::kInt8))).status));
  EXPECT_TRUE(absl::IsFailedPrecondition(
      FetchHere(Context(key_), ObjectVersion(1)).status));
  EXPECT_TRUE(announced_.empty());
}

// Pages of 16 tokens in mixed order. The chunk begins inside a page.
TEST_F(FetchDeliveryTest, PagesGetTheSameBytesFromHereAndFromAPeer) {
  const KvShape shape = ShapeOf(Model(), kTokens);
  KvPages pages{.keys = {},
                .values = {},
                .block_stride = 16 * 64,
                .token_stride = 64,
                .head_stride = 32,
                .block_tokens = 16,
                .blocks = 4,
                .block_table = {1, 3, 0},
                .first_token = 13};
  const size_t part = pages.blocks * pages.block_stride;
  std::vector<std::byte> here(6 * part, std::byte{0xee});
  for (int i = 0; i < 3; ++i) {
    pages.keys.push_back(here.data() + 2 * i * part);
    pages.values.push_back(here.data() + (2 * i + 1) * part);
  }
  std::vector<std::byte> expected = here;
  const KvView rows(kv_.data(), shape, KvStrides::HeadMajor(shape));
  for (size_t plane = 0; plane < 6; ++plane) {
    for (int token = 0; token < kTokens; ++token) {
      const int at = pages.first_token + token;
      for (int head = 0; head < 2; ++head) {
        std::memcpy(
            &expected[plane * part + pages.block_table[at / 16] * 1024 +
                      at % 16 * 64 + head * 32],
            rows.At(plane / 2, static_cast<KvPart>(plane % 2), head, token),
            32);
      }
    }
  }
  const std::vector<std::byte> empty = here;
  const auto to = KvDestination::InPages(shape, pages);
  ASSERT_TRUE(to.ok()) << to.status();
  EXPECT_TRUE(FetchHere(ContextTo(*to, key_, LevelSet::All())).status.ok());
  EXPECT_EQ(here, expected);
  here = empty;
  announced_.clear();
  EXPECT_TRUE(Receive(ContextTo(*to, key_, LevelSet::All()), std::nullopt, 3)
                  .status.ok());
  EXPECT_EQ(here, expected);
}

TEST_F(FetchDeliveryTest, EveryLevelIsEqualFromHereAndFromAPeer) {
  FillFinite();
  object_ = Encode(LevelSet::All().Without(LevelSet::Of(Level::kArchive)));
  for (const Level level : codec::LevelsOf(
           LevelSet::All().Without(LevelSet::Of(Level::kArchive)))) {
    out_.assign(out_.size(), std::byte{0});
    const delivery::AttemptResult here =
        FetchHere(Context(key_, LevelSet::Of(level)));
    ASSERT_TRUE(here.status.ok()) << Name(level) << here.status;
    EXPECT_EQ(here.level, level);
    const std::vector<std::byte> delivered =
        std::exchange(out_, std::vector<std::byte>(out_.size()));
    EXPECT_EQ(delivered == kv_, level == Level::kLossless) << Name(level);
    announced_.clear();
    const delivery::AttemptResult there =
        Receive(Context(key_, LevelSet::Of(level)), std::nullopt, 3,
                std::vector<Level>(3, level));
    ASSERT_TRUE(there.status.ok()) << Name(level) << there.status;
    EXPECT_EQ(there.level, level);
    EXPECT_EQ(out_, delivered) << Name(level);
    announced_.clear();
  }
}

TEST_F(FetchDeliveryTest, EachLayerComesAtItsOwnLevel) {
  FillFinite();
  object_ = Encode(LevelSet::All().Without(LevelSet::Of(Level::kArchive)));
  const std::vector<Level> levels = {Level::kBase2, Level::kLossless,
                                     Level::kBase};
  std::vector<std::vector<std::byte>> whole;
  for (const Level level : levels) {
    ASSERT_TRUE(FetchHere(Context(key_, LevelSet::Of(level))).status.ok());
    whole.push_back(out_);
  }
  const delivery::AttemptResult result =
      Receive(Context(key_), std::nullopt, 3, levels);
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(result.level, Level::kBase)
      << "the least exact level of its layers";
  const size_t layer_bytes = out_.size() / 3;
  for (size_t layer = 0; layer < 3; ++layer) {
    const auto from = static_cast<ptrdiff_t>(layer * layer_bytes);
    EXPECT_TRUE(std::equal(out_.begin() + from,
                           out_.begin() + from + layer_bytes,
                           whole[layer].begin() + from))
        << layer;
  }
}

TEST_F(FetchDeliveryTest, LayersOfAnEarlierTryKeepItsLevel) {
  FillFinite();
  object_ = Encode(LevelSet::All().Without(LevelSet::Of(Level::kArchive)));
  auto context = Context(key_);
  const delivery::AttemptResult cut =
      Receive(context, std::nullopt, 2, std::vector<Level>(3, Level::kBase));
  EXPECT_FALSE(cut.status.ok());
  ASSERT_EQ(announced_.size(), 2u);
  const delivery::AttemptResult whole = Receive(context, version_, 3);
  ASSERT_TRUE(whole.status.ok()) << whole.status;
  EXPECT_EQ(whole.level, Level::kBase) << "two of its layers are at base";
}

TEST_F(FetchDeliveryTest, TheLinkIsMeasuredAndThePredictionIsCompared) {
  // One layer a second, because the clock is read once per layer.
  ASSERT_TRUE(Receive(Context(key_), std::nullopt, 3).status.ok());
  const std::optional<double> rate =
      links_.BytesPerSecond(NodeId("b"), absl::UnixEpoch() + absl::Seconds(5));
  ASSERT_TRUE(rate.has_value());
  EXPECT_DOUBLE_EQ(*rate, LayersBytes(3) / 3.0);
  EXPECT_EQ(links_.counters()["rate.plans"], 1u);
  EXPECT_EQ(links_.counters()["rate.plans_blind"], 1u)
      << "nothing was predicted";
  // The expected rate is twice as high, and the engine prefills all tokens in a
  // second. The clock is read once more when the last layer is decoded.
  target_.bytes_per_second = *rate * 2;
  target_.prefill_tokens_per_second = kTokens;
  announced_.clear();
  ASSERT_TRUE(Receive(Context(key_), std::nullopt, 3).status.ok());
  const MetricValues counters = links_.counters();
  EXPECT_EQ(counters["rate.plans"], 2u);
  EXPECT_EQ(counters["rate.plans_blind"], 1u);
  EXPECT_EQ(counters["rate.bytes_actual"], LayersBytes(3));
  EXPECT_EQ(counters["rate.load_us_predicted"], 1500000u);
  EXPECT_EQ(counters["rate.load_us_actual"], 4000000u);
  EXPECT_EQ(counters["rate.late"], 1u);
  EXPECT_EQ(counters["rate.slower_than_recompute"], 1u);
}

TEST_F(FetchDeliveryTest, LevelsThatDecodeSlowerThanPrefillAreNotUsed) {
  FillFinite();
  object_ = Encode(LevelSet::Of(Level::kBase1).WithRefined());
  const auto rate = [&](Level level) {
    return decoding_.RatesAt(real_clock_.Now())[static_cast<size_t>(level)];
  };
  while (rate(Level::kBase1) == 0) {
    announced_.clear();
    ASSERT_TRUE(FetchHere(Context(key_)).status.ok());
  }
  EXPECT_EQ(rate(Level::kBase), 0) << "unknown";
  // A token has 384 bytes and takes an hour at the best level.
  target_.prefill_tokens_per_second = 1e3;
  decoding_.OnLayer(Level::kBase1, 384, absl::Hours(1), real_clock_.Now());
  const delivery::AttemptResult coarser = FetchHere(Context(key_));
  ASSERT_TRUE(coarser.status.ok()) << coarser.status;
  EXPECT_FALSE(coarser.recompute);
  EXPECT_EQ(coarser.level, Level::kBase);
  for (int i = 0; i < delivery::DecodeRateEstimate::kLayersMin; ++i) {
    decoding_.OnLayer(Level::kBase, 384, absl::Hours(1), real_clock_.Now());
  }
  announced_.clear();
  const delivery::AttemptResult none = FetchHere(Context(key_));
  EXPECT_TRUE(none.status.ok()) << none.status;
  EXPECT_TRUE(none.recompute);
  EXPECT_TRUE(announced_.empty());
  target_.prefill_tokens_per_second = 0;
  EXPECT_EQ(FetchHere(Context(key_)).level, Level::kBase1)
      << "the engine's rate is unknown";
}

TEST_F(FetchDeliveryTest, TheTimeToDecodeIsPredicted) {
  target_.bytes_per_second = 1e9;
  // Two workers decode the chunk in 9 s.
  for (int i = 0; i < delivery::DecodeRateEstimate::kLayersMin; ++i) {
    decoding_.OnLayer(Level::kLossless, kv_.size(), absl::Seconds(18),
                      real_clock_.Now());
  }
  ASSERT_TRUE(Receive(Context(key_), std::nullopt, 3).status.ok());
  EXPECT_NEAR(links_.counters()["rate.load_us_predicted"], 9e6, 2);
}

TEST_F(FetchDeliveryTest, WaitingForAPeersDiskDoesNotCountForTheLink) {
  auto context = Context(key_);
  const auto index =
      codec::ObjectIndex::Parse(object_->bytes(), object_->size());
  ASSERT_TRUE(index.ok()) << index.status();
  RemoteFetch fetch(
      context, {{0, std::nullopt}, {0, std::nullopt}}, Link(), arena_.get(),
      &pool_, pool_.NextRequester(), [](int, uint64_t) {},
      [](int, delivery::AttemptResult) {});
  fetch.OnBegin();
  for (int i = 0; i < 2; ++i) {
    const auto into =
        fetch.OnHit(i, *index, std::vector<Level>(3, Level::kLossless),
                    Tier::kMemory, LayersBytes(3));
    ASSERT_TRUE(into.ok()) << into.status();
    size_t at = 0;
    for (int layer = 0; layer < 3; ++layer) {
      const size_t bytes = BytesOf(*index, Level::kLossless, layer);
      fetch.OnLayer(i, layer, into->subspan(at, bytes));
      at += bytes;
    }
    for (int look = 0; look < 100; ++look) clock_.Now();  // seconds pass
    pool_.Drain();
  }
  fetch.OnDone(absl::OkStatus());
  EXPECT_DOUBLE_EQ(*links_.BytesPerSecond(NodeId("b"), absl::UnixEpoch()),
                   LayersBytes(3) * 2 / 6.0);
}

TEST_F(FetchDeliveryTest, ABrokenConnectionSaysNothingAboutTheLink) {
  EXPECT_FALSE(Receive(Context(key_), std::nullopt, 2).status.ok());
  EXPECT_EQ(links_.BytesPerSecond(NodeId("b"), absl::UnixEpoch()),
            std::nullopt);
  EXPECT_EQ(links_.counters()["rate.plans"], 0u);
}

TEST_F(FetchDeliveryTest, TheEndOfAFetchTellsAPeersHealth) {
  const auto is_failing = [&](absl::Duration later) {
    return IsFailing(clock_.Now() + later);
  };
  ASSERT_TRUE(Receive(Context(key_), std::nullopt, 3).status.ok());
  EXPECT_FALSE(is_failing(-absl::Minutes(1)));
  announced_.clear();
  EXPECT_FALSE(Receive(Context(key_), std::nullopt, 2).status.ok());
  EXPECT_TRUE(is_failing(-absl::Minutes(1))) << "the connection broke";
  EXPECT_FALSE(is_failing(delivery::PeerHealth::kBackoff));
}

TEST_F(FetchDeliveryTest, AnObjectOfANewerFormatIsNotThePeersFault) {
  delivery::AttemptResult result;
  RemoteFetch fetch(
      Context(key_), {{0, std::nullopt}}, Link(), arena_.get(), &pool_,
      pool_.NextRequester(), [](int, uint64_t) {},
      [&](int, delivery::AttemptResult r) { result = std::move(r); });
  fetch.OnBegin();
  fetch.OnDone(absl::UnimplementedError("object format 4"));
  EXPECT_TRUE(absl::IsUnimplemented(result.status)) << result.status;
  EXPECT_FALSE(IsFailing(clock_.Now()));
}

TEST_F(FetchDeliveryTest, WaitingForAConnectionIsNotThePeersSilence) {
  RemoteFetch fetch(
      Context(key_), {{0, std::nullopt}}, Link(), arena_.get(), &pool_,
      pool_.NextRequester(), [](int, uint64_t) {},
      [](int, delivery::AttemptResult) {});
  EXPECT_FALSE(IsFailing(clock_.Now() + delivery::PeerHealth::kSilence));
  fetch.OnDone(absl::DeadlineExceededError("no connection was free"));
  EXPECT_FALSE(IsFailing(clock_.Now()));
}

// One fetch is answered and receives a layer every few seconds. Meanwhile
// another fetch waits for the first part of its answer.
TEST_F(FetchDeliveryTest, EachLayerThatArrivesIsASignOfLife) {
  const auto index =
      codec::ObjectIndex::Parse(object_->bytes(), object_->size());
  ASSERT_TRUE(index.ok()) << index.status();
  std::vector<std::unique_ptr<RemoteFetch>> fetches;
  for (int i = 0; i < 2; ++i) {
    fetches.push_back(std::make_unique<RemoteFetch>(
        Context(key_), std::vector<delivery::ChunkWanted>{{0, std::nullopt}},
        Link(), arena_.get(), &pool_, pool_.NextRequester(),
        [](int, uint64_t) {}, [](int, delivery::AttemptResult) {}));
    fetches[i]->OnBegin();
  }
  const auto into =
      fetches[0]->OnHit(0, *index, std::vector<Level>(3, Level::kLossless),
                        Tier::kMemory, LayersBytes(3));
  ASSERT_TRUE(into.ok()) << into.status();
  size_t at = 0;
  for (int layer = 0; layer < 3; ++layer) {
    for (int look = 0; look < 3; ++look) clock_.Now();  // seconds pass
    const absl::Time silent = clock_.Now();
    EXPECT_TRUE(IsFailing(silent));
    const size_t bytes = BytesOf(*index, Level::kLossless, layer);
    fetches[0]->OnLayer(0, layer, into->subspan(at, bytes));
    at += bytes;
    // Not at a later time: the worker that decodes the layer moves the clock.
    EXPECT_FALSE(IsFailing(silent));
  }
  pool_.Drain();
  for (const auto& fetch : fetches) fetch->OnDone(absl::OkStatus());
}

// The built-in calibration under another name.
std::shared_ptr<const codec::Calibration> Foreign() {
  const auto geometry = codec::GeometryOf(ShapeOf(Model(), kTokens));
  const auto built_in = codec::Calibration::Uncalibrated(geometry);
  DigestBuilder name("foreign");
  auto made = codec::Calibration::Create(
      codec::CalibrationId(name.Finish()), FingerprintOf(Model()), geometry,
      built_in->tables(),
      std::vector<codec::StreamTransform>(6, built_in->Of(0, KvPart::kK, 0)));
  EXPECT_TRUE(made.ok()) << made.status();
  return *made;
}

TEST_F(FetchDeliveryTest, AMissingCalibrationIsNamedAndIsNoDamage) {
  FillFinite();
  const auto foreign = Foreign();
  object_ = Encode(LevelSet::Of(Level::kBase), foreign);
  const delivery::AttemptResult without = FetchHere(Context(key_));
  EXPECT_TRUE(absl::IsFailedPrecondition(without.status)) << without.status;
  EXPECT_THAT(std::string(without.status.message()),
              testing::AllOf(testing::HasSubstr(ShortHex(key_)),
                             testing::HasSubstr(ShortHex(foreign->id()))));
  EXPECT_TRUE(announced_.empty());
  calibrations_.Add(foreign);
  EXPECT_TRUE(FetchHere(Context(key_)).status.ok());
}

TEST_F(FetchDeliveryTest, APeersChunkWithoutItsCalibrationTakesNoMemory) {
  FillFinite();
  object_ = Encode(LevelSet::Of(Level::kBase), Foreign());
  const auto index =
      codec::ObjectIndex::Parse(object_->bytes(), object_->size());
  ASSERT_TRUE(index.ok()) << index.status();
  const size_t before = arena_->used_bytes();
  delivery::AttemptResult result;
  RemoteFetch fetch(
      Context(key_), {{0, std::nullopt}}, Link(), arena_.get(), &pool_,
      pool_.NextRequester(), [](int, uint64_t) {},
      [&](int, delivery::AttemptResult r) { result = std::move(r); });
  fetch.OnBegin();
  EXPECT_TRUE(absl::IsFailedPrecondition(
      fetch
          .OnHit(0, *index, std::vector<Level>(3, Level::kBase), Tier::kMemory,
                 100)
          .status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(result.status)) << result.status;
  EXPECT_EQ(arena_->used_bytes(), before);
  fetch.OnDone(absl::OkStatus());
}

TEST_F(FetchDeliveryTest, TheMemoryOfAChunkThatIsFetchedIsBounded) {
  const auto bound = [](LevelSet accept, int tokens, KvSlice slice) {
    ModelSpec model = Model();
    model.num_layers = 32;
    model.num_kv_heads = 8;
    model.head_dim = 128;
    delivery::RetrieveRequest request{std::make_shared<const ModelSpec>(model),
                                      *Namespace::Parse("t"),
                                      {},
                                      slice,
                                      accept,
                                      absl::InfiniteFuture()};
    request.chunks.push_back(
        {ChunkRef(), std::vector<int32_t>(tokens), MutableKvView()});
    return FetchBytesMax(request);
  };
  const KvSlice whole{0, 32, 0, 8};
  const LevelSet lossless = LevelSet::Of(Level::kLossless);
  const uint64_t raw = 2ull * 32 * 8 * 128 * 2;  // bytes of a token
  EXPECT_GE(bound(lossless, 256, whole), 256 * raw);
  EXPECT_LE(bound(lossless, 256, whole), 256 * raw * 17 / 16);
  // The overhead of a stream counts when there are few tokens.
  EXPECT_GT(bound(LevelSet::Of(Level::kBase2), 1, whole), 2 * raw);
  EXPECT_LT(bound(LevelSet::Of(Level::kBase), 1, whole), 2 * raw);
  EXPECT_EQ(bound(LevelSet::All(), 1, whole),
            bound(LevelSet::Of(Level::kBase2), 1, whole));
  for (const KvSlice& part : {KvSlice{0, 16, 0, 8}, KvSlice{0, 32, 4, 8}}) {
    EXPECT_NEAR(2.0 * bound(LevelSet::All(), 256, part),
                1.0 * bound(LevelSet::All(), 256, whole),
                2.0 * storage::Arena::kPageBytes);
  }
}

TEST_F(FetchDeliveryTest, ADamagedLayerFailsTheTryAndIsNotAnnounced) {
  object_->bytes()[object_->size() - 1] ^= std::byte{1};
  const delivery::AttemptResult result = FetchHere(Context(key_));
  EXPECT_TRUE(absl::IsDataLoss(result.status)) << result.status;
  EXPECT_EQ(announced_.count(2), 0u);
}

TEST_F(FetchDeliveryTest, ACancelledRetrieveEndsWithoutDelivering) {
  auto context = Context(key_);
  context->request.cancellation->Cancel();
  EXPECT_TRUE(absl::IsCancelled(FetchHere(context).status));
  EXPECT_TRUE(announced_.empty());
}

TEST_F(FetchDeliveryTest, StreamsOfAPeerAreDecodedAsTheyArrive) {
  for (const int layers : {2, 3}) {  // the peer dies in between, or not
    const delivery::AttemptResult result =
        Receive(Context(key_), std::nullopt, layers);
    EXPECT_EQ(result.status.ok(), layers == 3) << result.status;
    EXPECT_EQ(result.wire_bytes, LayersBytes(layers));
    if (layers == 3) {
      EXPECT_EQ(out_, kv_);
    }
  }
}

TEST_F(FetchDeliveryTest, ALaterTryLeavesAnnouncedLayersAlone) {
  const auto context = Context(key_);
  ASSERT_FALSE(Receive(context, std::nullopt, 2).status.ok());
  ASSERT_EQ(announced_.size(), 2u);
  // Damages the object in a layer that was already announced, so that the
  // engine may be reading it.
  std::memset(out_.data() + out_.size() / 3 * 2, 0, out_.size() / 3);
  object_->bytes()[object_->size() / 2] ^= std::byte{1};
  const delivery::AttemptResult second = Receive(context, version_, 3);
  EXPECT_TRUE(second.status.ok()) << second.status;
  EXPECT_EQ(out_, kv_);
  EXPECT_EQ(announced_, (std::map<int, int>{{0, 1}, {1, 1}, {2, 1}}));
}

TEST_F(FetchDeliveryTest, AChunksMemoryIsGivenBackBeforeItsTryEnds) {
  for (const int layers : {2, 3}) {
    Receive(Context(key_), std::nullopt, layers);
    EXPECT_EQ(scratch_at_end_, object_->capacity()) << layers << " layers came";
  }
}

TEST_F(FetchDeliveryTest, AChunkThatThePeerNeverMentionsIsReported) {
  delivery::AttemptResult result;
  RemoteFetch fetch(
      Context(key_), {{0, std::nullopt}}, Link(), arena_.get(), &pool_,
      pool_.NextRequester(), [](int, uint64_t) {},
      [&](int, delivery::AttemptResult r) { result = std::move(r); });
  fetch.OnDone(absl::UnavailableError("the peer died"));
  EXPECT_TRUE(absl::IsUnavailable(result.status));
}

}  // namespace
}  // namespace kdn::transfer
