// From encoded bytes to an engine's memory: FetchFromMemory and RemoteFetch
// over real objects.
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <numeric>
#include <random>

#include "absl/synchronization/notification.h"
#include "codec/encoder.h"
#include "delivery/local_fetch.h"
#include "delivery/remote_fetch.h"

namespace kdn::delivery {
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
    object_ = Encode();
    out_.resize(shape.bytes());
  }

  std::shared_ptr<storage::ArenaBlock> Encode() {
    const KvShape shape = ShapeOf(Model(), kTokens);
    codec::ObjectHeader header{
        ChunkIdentity{FingerprintOf(Model()), ns_, ChunkKey(),
                      std::string(kRawVariant),
                      std::vector<int32_t>(kTokens, 5)},
        PlacementKey(),
        shape,
        Model().rope,
        positions_,
        LevelSet::Of(Level::kLossless)};
    key_ = KeyOf(header.identity);
    auto block = *arena_->Allocate(codec::ObjectBytesMax(header));
    auto encoder = codec::ObjectEncoder::Create(header, block->bytes());
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
    RetrieveRequest request{std::make_shared<const ModelSpec>(Model()),
                            ns_,
                            {},
                            WholeOf(Model()),
                            accept,
                            absl::InfiniteFuture()};
    request.chunks.push_back(RetrieveChunk{
        ChunkRef{key, PlacementOf(key)}, positions_,
        MutableKvView(out_.data(), shape, KvStrides::HeadMajor(shape))});
    return std::make_shared<RetrieveContext>(std::move(request),
                                             [this](int, int layer) {
                                               absl::MutexLock lock(&mutex_);
                                               ++announced_[layer];
                                             });
  }

  AttemptResult FetchHere(std::shared_ptr<RetrieveContext> context,
                          std::optional<ObjectVersion> pinned = std::nullopt) {
    storage::ObjectInfo info;
    info.version = version_;
    AttemptResult result;
    absl::Notification done;
    FetchFromMemory(std::move(context), 0, {info, object_}, pinned, &pool_,
                    pool_.NextRequest(), [&](AttemptResult r) {
                      result = std::move(r);
                      done.Notify();
                    });
    done.WaitForNotification();
    return result;
  }

  // What a transport does, by hand: receives `layers` layers and breaks off
  // unless those were all.
  AttemptResult Receive(std::shared_ptr<RetrieveContext> context,
                        std::optional<ObjectVersion> pinned, int layers) {
    AttemptResult result;
    absl::Notification done;
    {
      RemoteFetch fetch(std::move(context), {{0, pinned}}, arena_.get(), &pool_,
                        pool_.NextRequest(), [&](int, AttemptResult r) {
                          scratch_at_end_ = arena_->used_bytes();
                          result = std::move(r);
                          done.Notify();
                        });
      const auto index =
          codec::ObjectIndex::Parse(object_->bytes(), object_->size());
      EXPECT_TRUE(index.ok()) << index.status();
      const auto into = fetch.OnHit(0, *index, Level::kLossless,
                                    storage::Tier::kMemory, kv_.size());
      EXPECT_TRUE(into.ok()) << into.status();
      size_t at = 0;
      for (int layer = 0; layer < layers; ++layer) {
        const size_t begin = at;
        for (const codec::ByteRange& range :
             index->LayerRanges(Level::kLossless, layer, 0, 2)) {
          std::memcpy(into->data() + at, object_->bytes().data() + range.offset,
                      range.bytes);
          at += range.bytes;
        }
        fetch.OnLayer(0, layer, into->subspan(begin, at - begin));
      }
      {  // the end of a try cancels what is not decoded by then
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

  const Namespace ns_ = *Namespace::Parse("t");
  WorkPool pool_;
  std::shared_ptr<storage::Arena> arena_;
  std::vector<std::byte> kv_;
  std::vector<int32_t> positions_;
  std::vector<std::byte> out_;
  std::shared_ptr<storage::ArenaBlock> object_;
  ChunkKey key_;
  ObjectVersion version_;
  size_t scratch_at_end_ = 0;  // used when the last try ended
  absl::Mutex mutex_;
  std::map<int, int> announced_;
};

TEST_F(FetchDeliveryTest, MemoryGivesTheVeryBytesAndAnnouncesEachLayerOnce) {
  const AttemptResult result = FetchHere(Context(key_));
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

TEST_F(FetchDeliveryTest, ADamagedLayerFailsTheTryAndIsNotAnnounced) {
  object_->bytes()[object_->size() - 1] ^= std::byte{1};
  const AttemptResult result = FetchHere(Context(key_));
  EXPECT_TRUE(absl::IsDataLoss(result.status)) << result.status;
  EXPECT_EQ(announced_.count(2), 0u);
}

TEST_F(FetchDeliveryTest, ACancelledRetrieveEndsWithoutDelivering) {
  auto context = Context(key_);
  *context->request.cancelled = true;
  EXPECT_TRUE(absl::IsCancelled(FetchHere(context).status));
  EXPECT_TRUE(announced_.empty());
}

TEST_F(FetchDeliveryTest, StreamsOfAPeerAreDecodedAsTheyArrive) {
  for (const int layers : {2, 3}) {  // the peer dies in between, or not
    const AttemptResult result = Receive(Context(key_), std::nullopt, layers);
    EXPECT_EQ(result.status.ok(), layers == 3) << result.status;
    EXPECT_EQ(result.wire_bytes,
              static_cast<uint64_t>(layers) * kv_.size() / 3);
    if (layers == 3) {
      EXPECT_EQ(out_, kv_);
    }
  }
}

TEST_F(FetchDeliveryTest, ALaterTryLeavesAnnouncedLayersAlone) {
  const auto context = Context(key_);
  ASSERT_FALSE(Receive(context, std::nullopt, 2).status.ok());
  ASSERT_EQ(announced_.size(), 2u);
  // The replica's bytes of a layer the engine already reads are damaged.
  std::memset(out_.data() + out_.size() / 3 * 2, 0, out_.size() / 3);
  object_->bytes()[object_->size() / 2] ^= std::byte{1};
  const AttemptResult second = Receive(context, version_, 3);
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

TEST_F(FetchDeliveryTest, AChunkThePeerNeverMentionsIsReported) {
  AttemptResult result;
  RemoteFetch fetch(Context(key_), {{0, std::nullopt}}, arena_.get(), &pool_,
                    pool_.NextRequest(),
                    [&](int, AttemptResult r) { result = std::move(r); });
  fetch.OnDone(absl::UnavailableError("the peer died"));
  EXPECT_TRUE(absl::IsUnavailable(result.status));
}

}  // namespace
}  // namespace kdn::delivery
