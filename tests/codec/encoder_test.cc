#include "codec/encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <thread>

#include "codec/format/stream_layout.h"
#include "tests/codec/test_chunk.h"

namespace kdn::codec {
namespace {

using testing::HasSubstr;

class EncoderTest : public testing::Test {
 protected:
  EncoderTest() : kv_(options_.shape, Layout::kTokenMajor) {
    std::mt19937 rng(11);
    kv_.FillRandom(&rng);
    memory_.resize(ObjectBytesMax(header_));
  }

  absl::Status CreateWith(const ObjectHeader& header) {
    memory_.resize(1 << 20);
    return ObjectEncoder::Create(header, calibration_, absl::MakeSpan(memory_))
        .status();
  }
  absl::StatusOr<ObjectEncoder> Create() {
    return ObjectEncoder::Create(header_, calibration_,
                                 absl::MakeSpan(memory_));
  }
  // The encoder refuses a layer with a value of `bad` in it, and names the
  // stream. It then accepts the good layer, and the object is the same as
  // without the refused one.
  void ExpectRefusesAndGoesOn(std::initializer_list<float> bad,
                              const std::string& name_of_k,
                              const std::string& name_of_v) {
    const std::vector<std::byte> expected = Encode(header_, kv_.view());
    auto encoder = Create();
    ASSERT_TRUE(encoder.ok());
    ASSERT_TRUE(encoder->EncodeLayer(kv_.view().Layer(0)).ok());
    for (KvPart part : {KvPart::kK, KvPart::kV}) {
      for (const float value : bad) {
        KvBuffer damaged = kv_;
        damaged.Set(1, part, 2, 3, 4, value);
        const absl::Status status =
            encoder->EncodeLayer(damaged.view().Layer(1));
        EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
        EXPECT_THAT(std::string(status.message()),
                    HasSubstr(part == KvPart::kK ? name_of_k : name_of_v));
        EXPECT_EQ(encoder->layers_encoded(), 1);
      }
    }
    ASSERT_TRUE(encoder->EncodeLayer(kv_.view().Layer(1)).ok());
    const auto finished = encoder->Finish();
    ASSERT_TRUE(finished.ok());
    memory_.resize(finished->bytes);
    EXPECT_TRUE(memory_ == expected);
  }

  ChunkOptions options_;
  ObjectHeader header_ = HeaderOf(options_);
  std::shared_ptr<const Calibration> calibration_ = TestCalibrationOf(header_);
  KvBuffer kv_;
  std::vector<std::byte> memory_;
};

TEST_F(EncoderTest, EncodesLayersInOrderAndThenFinishes) {
  auto encoder = Create();
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  for (int layer = 0; layer < options_.shape.layers; ++layer) {
    EXPECT_EQ(encoder->layers_encoded(), layer);
    EXPECT_EQ(encoder->Finish().status().code(),
              absl::StatusCode::kFailedPrecondition);
    EXPECT_TRUE(encoder->EncodeLayer(kv_.view().Layer(layer)).ok());
  }
  EXPECT_EQ(encoder->EncodeLayer(kv_.view().Layer(0)).code(),
            absl::StatusCode::kFailedPrecondition);
  const auto finished = encoder->Finish();
  ASSERT_TRUE(finished.ok()) << finished.status();
  EXPECT_EQ(finished->key, KeyOf(header_));
  EXPECT_LE(finished->bytes, memory_.size());
  const auto index = ObjectIndex::Parse(memory_, finished->bytes);
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_EQ(index->version(), finished->version);
  EXPECT_EQ(index->key(), finished->key);
}

TEST_F(EncoderTest, TheBoundIsTightUpToOnePadding) {
  for (LevelSet levels : {kApartLevels, LevelSet::Of(Level::kInt8)}) {
    header_.levels = levels;
    const size_t bytes = Encode(header_, kv_.view()).size();
    EXPECT_LE(bytes, ObjectBytesMax(header_));
    // Only streams of int8 have a fixed length.
    if (levels == kApartLevels) continue;
    EXPECT_GT(bytes + 64, ObjectBytesMax(header_));
  }
}

TEST_F(EncoderTest, IncompressibleValuesFitTheBound) {
  std::mt19937 rng(12);
  options_.shape.tokens = 200;
  options_.levels = LevelSet::Of(Level::kLossless);
  KvBuffer kv(options_.shape, Layout::kTokenMajor);
  std::vector<uint16_t> bits(options_.shape.head_dim);
  for (int token = 0; token < options_.shape.tokens; ++token) {
    for (int head = 0; head < options_.shape.kv_heads; ++head) {
      for (uint16_t& value : bits) value = static_cast<uint16_t>(rng());
      std::memcpy(kv.view().At(token % 2, KvPart::kK, head, token), bits.data(),
                  options_.shape.head_bytes());
    }
  }
  const ObjectHeader header = HeaderOf(options_);
  EXPECT_LE(Encode(header, kv.view()).size(), ObjectBytesMax(header));
  // The bound is not much above the engine's own bytes.
  EXPECT_LT(ObjectBytesMax(header), options_.shape.bytes() * 1.2);
}

TEST_F(EncoderTest, SameInputGivesTheSameVersionAndOtherBytesAnother) {
  const auto version = [&] {
    const auto object = Encode(header_, kv_.view());
    return ObjectIndex::Parse(object, object.size())->version();
  };
  const ObjectVersion first = version();
  EXPECT_EQ(first, version());
  kv_.Set(1, KvPart::kV, 2, 4, 7, 123.0f);
  EXPECT_NE(first, version());
}

// Values that coding makes smaller, so that the two forms differ.
TEST_F(EncoderTest, RawAndCodedObjectsGiveTheSameRowsAndHaveOtherVersions) {
  options_.shape.tokens = 64;
  options_.levels = LevelSet::Of(Level::kLossless);
  header_ = HeaderOf(options_);
  KvBuffer kv(options_.shape, Layout::kTokenMajor);
  std::mt19937 rng(5);
  kv.FillRandom(&rng);
  std::vector<ObjectVersion> versions;
  std::vector<size_t> sizes;
  for (const LosslessForm form : {LosslessForm::kCoded, LosslessForm::kRaw}) {
    std::vector<std::byte> object(ObjectBytesMax(header_));
    auto encoder =
        ObjectEncoder::Create(header_, nullptr, absl::MakeSpan(object), form);
    ASSERT_TRUE(encoder.ok()) << encoder.status();
    for (int layer = 0; layer < options_.shape.layers; ++layer) {
      ASSERT_TRUE(encoder->EncodeLayer(kv.view().Layer(layer)).ok());
    }
    const auto finished = encoder->Finish();
    ASSERT_TRUE(finished.ok()) << finished.status();
    object.resize(finished->bytes);
    sizes.push_back(finished->bytes);
    versions.push_back(finished->version);
    KvBuffer out(options_.shape, Layout::kTokenMajor);
    ASSERT_TRUE(
        DecodeAll(object, Level::kLossless, header_.positions, out.view())
            .ok());
    EXPECT_TRUE(SameElements(out.view(), kv.view()));
  }
  EXPECT_LT(sizes[0], sizes[1]);
  EXPECT_GT(sizes[1], options_.shape.bytes());
  EXPECT_NE(versions[0], versions[1]);
}

TEST_F(EncoderTest, HalfEncodedMemoryNeverParses) {
  const std::vector<std::byte> older = Encode(header_, kv_.view());
  const size_t bytes = older.size();
  std::copy(older.begin(), older.end(), memory_.begin());
  auto encoder = Create();
  ASSERT_TRUE(encoder.ok());
  for (int layer = 0; layer < options_.shape.layers; ++layer) {
    EXPECT_EQ(ObjectIndex::Parse(memory_, bytes).status().code(),
              absl::StatusCode::kDataLoss);
    ASSERT_TRUE(encoder->EncodeLayer(kv_.view().Layer(layer)).ok());
  }
  EXPECT_EQ(ObjectIndex::Parse(memory_, bytes).status().code(),
            absl::StatusCode::kDataLoss);
  ASSERT_TRUE(encoder->Finish().ok());
  EXPECT_TRUE(ObjectIndex::Parse(memory_, bytes).ok());
}

// Without levels that joint streams may take more bytes for, the bound is that
// of this very object.
TEST_F(EncoderTest, RefusesMemoryThatIsTooSmall) {
  header_.levels = LevelSet::Of(Level::kLossless).With(Level::kInt8);
  memory_.resize(ObjectBytesMax(header_) - 1);
  const auto encoder = Create();
  EXPECT_EQ(encoder.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(encoder.status().message()), HasSubstr("reserved"));
}

TEST_F(EncoderTest, RefusesHeadersThatContradictThemselves) {
  const std::vector<std::function<void(ObjectHeader*)>> mistakes = {
      [](ObjectHeader* h) { h->positions.pop_back(); },
      [](ObjectHeader* h) { h->identity.tokens.push_back(1); },
      [](ObjectHeader* h) { h->identity.tokens.clear(); },
      [](ObjectHeader* h) { h->identity.tokens[0] = -1; },
      [](ObjectHeader* h) { h->identity.variant = "no good"; },
      [](ObjectHeader* h) { h->positions[2] = -3; },
      [](ObjectHeader* h) { h->shape.layers = 0; },
      [](ObjectHeader* h) { h->shape.layers = kLayersMax + 1; },
      [](ObjectHeader* h) { h->shape.kv_heads = kKvHeadsMax + 1; },
      [](ObjectHeader* h) { h->shape.head_dim = -8; },
      [](ObjectHeader* h) { h->shape.tokens = kChunkTokensMax + 1; },
      [](ObjectHeader* h) { h->shape.dtype = static_cast<Dtype>(9); },
      [](ObjectHeader* h) { h->rope.rotary_dim = 10; },
      [](ObjectHeader* h) { h->rope.theta = -1.0; },
      [](ObjectHeader* h) { h->levels = LevelSet(); },
      [](ObjectHeader* h) { h->levels = LevelSet::Of(Level::kBase2); },
      [](ObjectHeader* h) {
        h->levels = LevelSet::Of(Level::kBase).With(Level::kBase2);
      },
      [](ObjectHeader* h) {
        h->levels = LevelSet::Of(Level::kInt8).With(Level::kBase1);
      },
      [](ObjectHeader* h) { h->shape.head_dim = kTransformDimMax + 1; }};
  ASSERT_TRUE(CreateWith(header_).ok());
  for (size_t i = 0; i < mistakes.size(); ++i) {
    ObjectHeader header = header_;
    mistakes[i](&header);
    EXPECT_EQ(CreateWith(header).code(), absl::StatusCode::kInvalidArgument)
        << "mistake " << i;
  }
}

TEST_F(EncoderTest, RefusesLayersOfAnotherShape) {
  auto encoder = Create();
  ASSERT_TRUE(encoder.ok());
  const KvShape layer = kv_.view().Layer(0).shape();
  const std::vector<std::function<void(KvShape*)>> mistakes = {
      [](KvShape* s) { s->layers = 2; }, [](KvShape* s) { s->kv_heads = 2; },
      [](KvShape* s) { s->tokens = 4; }, [](KvShape* s) { s->head_dim = 4; },
      [](KvShape* s) { s->dtype = Dtype::kFp16; }};
  for (size_t i = 0; i < mistakes.size(); ++i) {
    KvShape shape = layer;
    mistakes[i](&shape);
    const KvView view(kv_.bytes().data(), shape, KvStrides::TokenMajor(shape));
    EXPECT_EQ(encoder->EncodeLayer(view).code(),
              absl::StatusCode::kInvalidArgument)
        << "mistake " << i;
  }
  EXPECT_EQ(encoder->layers_encoded(), 0);
}

TEST_F(EncoderTest, Int8NamesTheStreamOfAValueThatIsNotFiniteAndGoesOn) {
  ExpectRefusesAndGoesOn({std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()},
                         "layer 1 K head 2", "layer 1 V head 2");
}

TEST_F(EncoderTest, BaseNamesTheStreamOfAValueThatIsNotFiniteAndGoesOn) {
  header_.levels = LevelSet::Of(Level::kBase2).WithRefined();
  ExpectRefusesAndGoesOn({-std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()},
                         "level base layer 1 K head group 0",
                         "level base layer 1 V head group 0");
}

// Layers that the codec makes much shorter, and layer 2, whose exponents are
// random, so that it stays longer than the others.
class LayersInAnyOrderTest : public EncoderTest {
 protected:
  LayersInAnyOrderTest() {
    options_.shape.layers = 5;
    options_.shape.tokens = 50;
    options_.shape.head_dim = 16;
    options_.rotary_dim = 16;
    header_ = HeaderOf(options_);
    calibration_ = TestCalibrationOf(header_);
    kv_ = KvBuffer(options_.shape, Layout::kTokenMajor);
    std::mt19937 rng(14);
    kv_.FillRandom(&rng);
    for (int token = 0; token < options_.shape.tokens; ++token) {
      for (int dim = 0; dim < options_.shape.head_dim; ++dim) {
        const int exponent = static_cast<int>(rng() % 60) - 30;
        kv_.Set(2, KvPart::kK, 1, token, dim, std::ldexp(1.5f, exponent));
      }
    }
    memory_.resize(ObjectBytesMax(header_));
    expected_ = Encode(header_, kv_.view());
  }

  void ExpectSameBytes(ObjectEncoder* encoder) {
    const auto finished = encoder->Finish();
    ASSERT_TRUE(finished.ok()) << finished.status();
    ASSERT_EQ(finished->bytes, expected_.size());
    EXPECT_EQ(std::memcmp(memory_.data(), expected_.data(), expected_.size()),
              0);
  }

  std::vector<std::byte> expected_;
};

TEST_F(LayersInAnyOrderTest, EveryOrderGivesTheSameBytes) {
  std::vector<int> order = {0, 1, 2, 3, 4};
  do {
    // Reused memory holds an older object's bytes.
    std::memset(memory_.data(), 0xee, memory_.size());
    auto encoder = Create();
    ASSERT_TRUE(encoder.ok()) << encoder.status();
    for (const int layer : order) {
      ASSERT_TRUE(encoder->EncodeLayer(layer, kv_.view().Layer(layer)).ok());
    }
    ExpectSameBytes(&*encoder);
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST_F(LayersInAnyOrderTest, AnyNumberOfThreadsGivesTheSameBytes) {
  for (const int count : {1, 2, 3, 5}) {
    auto encoder = Create();
    ASSERT_TRUE(encoder.ok()) << encoder.status();
    std::atomic<int> next{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < count; ++i) {
      threads.emplace_back([&] {
        for (int layer = next++; layer < options_.shape.layers;
             layer = next++) {
          EXPECT_TRUE(
              encoder->EncodeLayer(layer, kv_.view().Layer(layer)).ok());
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    ExpectSameBytes(&*encoder);
  }
}

TEST_F(LayersInAnyOrderTest, ARefusedLayerMayBeEncodedLater) {
  auto encoder = Create();
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  KvBuffer damaged = kv_;
  damaged.Set(1, KvPart::kV, 0, 0, 0, std::numeric_limits<float>::infinity());
  for (const int layer : {0, 3, 1, 4, 2}) {
    EXPECT_EQ(encoder->EncodeLayer(layer, damaged.view().Layer(layer)).ok(),
              layer != 1);
  }
  EXPECT_EQ(encoder->layers_encoded(), 1);
  EXPECT_TRUE(absl::IsFailedPrecondition(encoder->Finish().status()));
  ASSERT_TRUE(encoder->EncodeLayer(1, kv_.view().Layer(1)).ok());
  EXPECT_EQ(encoder->layers_encoded(), 5);
  ExpectSameBytes(&*encoder);
}

TEST_F(LayersInAnyOrderTest, ALayerIsEncodedOnce) {
  auto encoder = Create();
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  const KvView layer = kv_.view().Layer(0);
  for (const int none : {-1, 5}) {
    EXPECT_TRUE(absl::IsInvalidArgument(encoder->EncodeLayer(none, layer)));
  }
  for (const int twice : {3, 0}) {
    EXPECT_TRUE(encoder->EncodeLayer(twice, layer).ok());
    EXPECT_TRUE(absl::IsFailedPrecondition(encoder->EncodeLayer(twice, layer)));
  }
}

TEST_F(EncoderTest, LosslessAloneHoldsAnyBits) {
  options_.levels = LevelSet::Of(Level::kLossless);
  kv_.Set(0, KvPart::kK, 0, 0, 0, std::numeric_limits<float>::quiet_NaN());
  kv_.Set(1, KvPart::kV, 1, 1, 1, -std::numeric_limits<float>::infinity());
  const ObjectHeader header = HeaderOf(options_);
  KvBuffer decoded(options_.shape, Layout::kHeadMajor);
  ASSERT_TRUE(DecodeAll(Encode(header, kv_.view()), Level::kLossless,
                        header.positions, decoded.view())
                  .ok());
  EXPECT_TRUE(SameElements(kv_.view(), decoded.view()));
}

}  // namespace
}  // namespace kdn::codec
