#include "codec/encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

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
    return ObjectEncoder::Create(header, absl::MakeSpan(memory_)).status();
  }

  ChunkOptions options_;
  ObjectHeader header_ = HeaderOf(options_);
  KvBuffer kv_;
  std::vector<std::byte> memory_;
};

TEST_F(EncoderTest, EncodesLayersInOrderAndThenFinishes) {
  auto encoder = ObjectEncoder::Create(header_, absl::MakeSpan(memory_));
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
  EXPECT_EQ(finished->key, KeyOf(header_.identity));
  EXPECT_LE(finished->bytes, memory_.size());
  const auto index = ObjectIndex::Parse(memory_, finished->bytes);
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_EQ(index->version(), finished->version);
  EXPECT_EQ(index->key(), finished->key);
}

TEST_F(EncoderTest, TheBoundIsTightUpToOnePadding) {
  const size_t bytes = Encode(header_, kv_.view()).size();
  EXPECT_LE(bytes, ObjectBytesMax(header_));
  EXPECT_GT(bytes + 64, ObjectBytesMax(header_));
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

TEST_F(EncoderTest, HalfEncodedMemoryNeverParses) {
  const std::vector<std::byte> older = Encode(header_, kv_.view());
  const size_t bytes = older.size();
  std::copy(older.begin(), older.end(), memory_.begin());
  auto encoder = ObjectEncoder::Create(header_, absl::MakeSpan(memory_));
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

TEST_F(EncoderTest, RefusesMemoryThatIsTooSmall) {
  memory_.pop_back();
  const auto encoder = ObjectEncoder::Create(header_, absl::MakeSpan(memory_));
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
      [](ObjectHeader* h) { h->levels = LevelSet(); }};
  ASSERT_TRUE(CreateWith(header_).ok());
  for (size_t i = 0; i < mistakes.size(); ++i) {
    ObjectHeader header = header_;
    mistakes[i](&header);
    EXPECT_EQ(CreateWith(header).code(), absl::StatusCode::kInvalidArgument)
        << "mistake " << i;
  }
}

TEST_F(EncoderTest, RefusesLayersOfAnotherShape) {
  auto encoder = ObjectEncoder::Create(header_, absl::MakeSpan(memory_));
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
  const std::vector<std::byte> expected = Encode(header_, kv_.view());
  auto encoder = ObjectEncoder::Create(header_, absl::MakeSpan(memory_));
  ASSERT_TRUE(encoder.ok());
  ASSERT_TRUE(encoder->EncodeLayer(kv_.view().Layer(0)).ok());
  for (KvPart part : {KvPart::kK, KvPart::kV}) {
    for (float bad : {std::numeric_limits<float>::infinity(),
                      std::numeric_limits<float>::quiet_NaN()}) {
      KvBuffer damaged = kv_;
      damaged.Set(1, part, 2, 3, 4, bad);
      const absl::Status status = encoder->EncodeLayer(damaged.view().Layer(1));
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(std::string(status.message()),
                  HasSubstr(part == KvPart::kK ? "layer 1 K head 2"
                                               : "layer 1 V head 2"));
      EXPECT_EQ(encoder->layers_encoded(), 1);
    }
  }
  ASSERT_TRUE(encoder->EncodeLayer(kv_.view().Layer(1)).ok());
  const auto finished = encoder->Finish();
  ASSERT_TRUE(finished.ok());
  memory_.resize(finished->bytes);
  EXPECT_TRUE(memory_ == expected);
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
