// Objects of version 4: K and V of a head group share a stream.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "codec/format/stream_layout.h"
#include "codec/transform/transform_frame.h"
#include "tests/codec/supported_isas.h"
#include "tests/codec/test_calibration.h"
#include "tests/codec/test_chunk.h"

namespace kdn::codec {
namespace {

struct JointCase {
  const char* name;
  KvShape shape;
  int joint_heads;
  RopePairing pairing = RopePairing::kNeoX;
};

// Head groups of one and of several heads, whole and partial bands, all element
// types, one token and many.
const JointCase kCases[] = {
    {"OneHead", {2, 3, 40, 8, Dtype::kBf16}, 1},
    {"AllHeads", {2, 3, 70, 16, Dtype::kBf16}, 3},
    {"Groups", {1, 4, 33, 32, Dtype::kFp16}, 2, RopePairing::kGptJ},
    {"Many", {1, 2, 300, 64, Dtype::kBf16}, 2},
    {"OneToken", {1, 2, 1, 16, Dtype::kFp32}, 1},
    {"MostDimensions", {1, 1, 20, 256, Dtype::kBf16}, 1},
};

class JointTest : public testing::TestWithParam<JointCase> {
 protected:
  JointTest()
      : calibration_(MadeJointCalibration(GeometryOf(GetParam().shape),
                                          GetParam().joint_heads)),
        kv_(GetParam().shape, Layout::kTokenMajor) {
    ChunkOptions options;
    options.shape = GetParam().shape;
    options.rotary_dim = options.shape.head_dim;
    options.pairing = GetParam().pairing;
    options.levels = LevelSet::All();
    header_ = HeaderOf(options);
    std::mt19937 random(5);
    kv_.FillRandom(&random);
    object_ = EncodeWith(calibration_, header_, kv_.view());
    auto index = ObjectIndex::Parse(object_, object_.size());
    EXPECT_TRUE(index.ok()) << index.status();
    index_ = *std::move(index);
  }

  const KvShape& shape() const { return GetParam().shape; }
  ObjectDecoder Decoder(absl::Span<const int32_t> positions,
                        Isa isa = BestIsa()) const {
    auto decoder =
        ObjectDecoder::Create(&*index_, calibration_, positions, isa);
    EXPECT_TRUE(decoder.ok()) << decoder.status();
    return *std::move(decoder);
  }
  KvBuffer Decoded(Level level, absl::Span<const int32_t> positions,
                   Isa isa = BestIsa()) const {
    KvBuffer decoded(shape(), Layout::kHeadMajor);
    const ObjectDecoder decoder = Decoder(positions, isa);
    for (int layer = 0; layer < shape().layers; ++layer) {
      EXPECT_TRUE(decoder
                      .DecodeLayerOf(object_, level, layer, 0, shape().kv_heads,
                                     decoded.view().Layer(layer))
                      .ok());
    }
    return decoded;
  }
  std::vector<std::byte> Fetch(Level level, int layer, int begin,
                               int end) const {
    std::vector<std::byte> bytes;
    for (const ByteRange& range :
         index_->LayerRanges(level, layer, begin, end)) {
      const auto from = object_.begin() + static_cast<ptrdiff_t>(range.offset);
      bytes.insert(bytes.end(), from,
                   from + static_cast<ptrdiff_t>(range.bytes));
    }
    return bytes;
  }

  std::shared_ptr<const Calibration> calibration_;
  ObjectHeader header_ = HeaderOf({});
  KvBuffer kv_;
  std::vector<std::byte> object_;
  std::optional<ObjectIndex> index_;
};

TEST_P(JointTest, TheHeaderSaysWhichHeadsShareStreams) {
  EXPECT_EQ(static_cast<int>(object_[6]), 4);
  EXPECT_EQ(static_cast<int>(object_[35]), GetParam().joint_heads);
  EXPECT_EQ(index_->header().joint_heads, GetParam().joint_heads);
  EXPECT_TRUE(VerifyObject(*index_, object_).ok());
}

TEST_P(JointTest, StreamsOfVAreEmptyAndALayerIsOneRangeOfALevel) {
  const StreamGrid grid = GridOf(index_->header());
  for (const Level level : LadderTo(Level::kBase2)) {
    for (const StreamId& id : StreamsOf(grid, {0, level})) {
      const StreamEntry& entry = index_->Entry(id);
      EXPECT_EQ(entry.bytes == 0, id.part == KvPart::kV) << Name(id);
      EXPECT_TRUE(entry.bytes > 0 || entry.crc32c == 0) << Name(id);
    }
  }
  EXPECT_EQ(index_->LayerRanges(Level::kBase, 0, 0, shape().kv_heads).size(),
            1u);
  EXPECT_EQ(index_->LayerRanges(Level::kArchive, 0, 0, 1).size(), 1u);
  EXPECT_TRUE(index_->LayerRanges(Level::kBase2, 0, 0, 0).empty());
}

TEST_P(JointTest, EveryIsaDecodesTheSameBits) {
  const auto wanted = Shifted(header_.positions, 11);
  for (const Level level : LadderTo(Level::kBase2)) {
    const KvBuffer scalar = Decoded(level, wanted, Isa::kScalar);
    for (const Isa isa : IsasUnderTest()) {
      EXPECT_TRUE(
          SameElements(scalar.view(), Decoded(level, wanted, isa).view()))
          << Name(level) << " isa " << static_cast<int>(isa);
    }
  }
}

TEST_P(JointTest, TheIndexHasTheErrorsOfKAndOfV) {
  for (const Level level : LevelsOf(header_.levels)) {
    const KvBuffer decoded = Decoded(level, header_.positions);
    const StreamGrid grid = GridOf(index_->header());
    for (int layer = 0; layer < shape().layers; ++layer) {
      for (const StreamId& id : StreamsOf(grid, {layer, level})) {
        const int heads = grid.HeadsOf(id.part, level);
        double largest = 0;
        double squares = 0;
        for (int i = 0; i < heads * shape().tokens; ++i) {
          const int head = id.head_group * heads + i / shape().tokens;
          const int token = i % shape().tokens;
          const auto a = kv_.Row(layer, id.part, head, token);
          const auto b = decoded.Row(layer, id.part, head, token);
          for (size_t d = 0; d < a.size(); ++d) {
            const double error = std::fabs(double{a[d]} - b[d]);
            largest = std::max(largest, error);
            squares += error * error;
          }
        }
        const double rms = std::sqrt(
            squares / (1.0 * heads * shape().tokens * shape().head_dim));
        EXPECT_NEAR(index_->Entry(id).error_max, largest, 1e-6 * largest)
            << Name(id);
        EXPECT_NEAR(index_->Entry(id).error_rms, rms, 1e-5 * rms) << Name(id);
      }
    }
  }
}

TEST_P(JointTest, FinerLevelsHaveSmallerErrors) {
  // In few tokens of many dimensions, the rows themselves take fewer bytes.
  const uint64_t at = index_->Entry({Level::kBase, 0, KvPart::kK, 0}).offset;
  if (object_[at] == std::byte{1}) return;
  double last = INFINITY;
  for (const Level level :
       {Level::kArchive, Level::kBase, Level::kBase1, Level::kBase2}) {
    double squares = 0;
    for (const StreamId& id : StreamsOf(GridOf(index_->header()), {0, level})) {
      squares += std::pow(index_->Entry(id).error_rms, 2);
    }
    EXPECT_LT(squares, last) << Name(level);
    last = squares;
  }
}

TEST_P(JointTest, SlicesOfHeadsEqualTheWhole) {
  const auto wanted = Shifted(header_.positions, 7);
  const ObjectDecoder decoder = Decoder(wanted);
  for (const Level level : LevelsOf(header_.levels)) {
    const KvBuffer whole = Decoded(level, wanted);
    for (int begin = 0; begin < shape().kv_heads; ++begin) {
      for (int end = begin + 1; end <= shape().kv_heads; ++end) {
        KvShape part = shape();
        part.layers = 1;
        part.kv_heads = end - begin;
        const KvView expected(whole.view().At(0, KvPart::kK, begin, 0), part,
                              whole.view().strides());
        KvBuffer decoded(part, Layout::kPadded);
        ASSERT_TRUE(decoder
                        .DecodeLayer(level, 0, begin, end,
                                     Fetch(level, 0, begin, end),
                                     decoded.view())
                        .ok());
        EXPECT_TRUE(SameElements(expected, decoded.view())) << Name(level);
      }
    }
  }
}

TEST_P(JointTest, FlippedBitsAreFoundWhileDecoding) {
  const ObjectDecoder decoder = Decoder(header_.positions);
  KvBuffer decoded(shape(), Layout::kTokenMajor);
  for (const Level level : {Level::kBase2, Level::kArchive}) {
    for (const ByteRange& range :
         index_->LayerRanges(level, 0, 0, shape().kv_heads)) {
      const uint64_t stride = 1 + range.bytes / 25;
      for (uint64_t bit = 0; bit < 8 * range.bytes; bit += stride) {
        std::byte& at = object_[range.offset + bit / 8];
        at ^= std::byte{1} << (bit % 8);
        EXPECT_EQ(decoder
                      .DecodeLayerOf(object_, level, 0, 0, shape().kv_heads,
                                     decoded.view().Layer(0))
                      .code(),
                  absl::StatusCode::kDataLoss)
            << Name(level) << " bit " << bit;
        at ^= std::byte{1} << (bit % 8);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, JointTest, testing::ValuesIn(kCases),
                         [](const auto& info) { return info.param.name; });

// The parts of the first stream of a level, which is not refined.
StreamParts PartsOfFirst(const ObjectIndex& index,
                         const Calibration& calibration,
                         absl::Span<const std::byte> object, Level level) {
  const StreamId id{level, 0, KvPart::kK, 0};
  const StreamEntry& entry = index.Entry(id);
  const StreamShape shape = StreamShapeOf(GridOf(index.header()), id);
  const StreamTransform& transform = calibration.Of(0, KvPart::kK, 0);
  auto parts = ReadLevel(FrameOf(shape, transform), transform,
                         object.subspan(entry.offset, entry.bytes));
  EXPECT_TRUE(parts.ok()) << parts.status();
  return *std::move(parts);
}

class TokenClassTest : public testing::Test {
 protected:
  static constexpr int kTokens = 96;

  StreamParts Coded(Level level, const KvBuffer& kv) {
    object_ = EncodeWith(calibration_, header_, kv.view());
    index_ = *ObjectIndex::Parse(object_, object_.size());
    return PartsOfFirst(*index_, *calibration_, object_, level);
  }

  const KvShape shape_ = {1, 2, kTokens, 16, Dtype::kFp32};
  std::shared_ptr<const Calibration> calibration_ =
      MadeJointCalibration(GeometryOf(shape_), 2);
  ObjectHeader header_ =
      HeaderOf({.shape = shape_, .rotary_dim = 16, .levels = LevelSet::All()});
  std::vector<std::byte> object_;
  std::optional<ObjectIndex> index_;
};

TEST_F(TokenClassTest, TokensHaveSeveralClassesAndNoneNeedsPadding) {
  KvBuffer kv(shape_, Layout::kTokenMajor);
  std::mt19937 random(5);
  kv.FillRandom(&random);
  const StreamParts parts = Coded(Level::kBase, kv);
  std::map<int, int> counts;
  for (const uint8_t token_class : parts.token_classes) ++counts[token_class];
  EXPECT_GE(counts.size(), 3u);
  for (const auto& [token_class, count] : counts) {
    EXPECT_LT(token_class, 4);
    EXPECT_EQ(count % 8, 0) << "class " << token_class;
  }
}

TEST_F(TokenClassTest, ArchiveTakesTheNextClassOfEachToken) {
  KvBuffer kv(shape_, Layout::kTokenMajor);
  std::mt19937 random(5);
  kv.FillRandom(&random);
  const StreamParts base = Coded(Level::kBase, kv);
  const StreamParts archive = Coded(Level::kArchive, kv);
  ASSERT_EQ(base.token_classes.size(), archive.token_classes.size());
  for (int token = 0; token < kTokens; ++token) {
    EXPECT_EQ(archive.token_classes[token], base.token_classes[token] + 1);
  }
}

// Tokens may lie far along the first component, which is wide.
TEST_F(TokenClassTest, WideComponentsReachFarWithoutRawTokens) {
  const StreamTransform& transform = calibration_->Of(0, KvPart::kK, 0);
  KvBuffer kv(shape_, Layout::kTokenMajor);
  // K does not turn at position 0, so that rows are easy to place.
  std::fill(header_.positions.begin(), header_.positions.end(), 0);
  for (int token = 0; token < kTokens; ++token) {
    for (int row = 0; row < transform.dim(); ++row) {
      const int head = row / shape_.head_dim;
      const float along = static_cast<float>(transform.synthesis.At(row, 0)) *
                          transform.ScaleOf(head) *
                          static_cast<float>(token % 2 == 0 ? 1000 : -1000);
      kv.Set(0, head < 2 ? KvPart::kK : KvPart::kV, head % 2, token,
             row % shape_.head_dim, transform.mean[row] + along);
    }
  }
  const StreamParts parts = Coded(Level::kBase, kv);
  EXPECT_LE(parts.raw_tokens.size(), 1u);  // the first is always raw
  const StreamEntry& entry = index_->Entry({Level::kBase, 0, KvPart::kK, 0});
  EXPECT_LT(entry.error_max, 4.0f);  // of values up to 110
}

TEST(JointHeaderTest, ArchiveNeedsJointStreams) {
  ObjectHeader header = HeaderOf({});
  header.levels = LevelSet::Of(Level::kArchive);
  std::vector<std::byte> memory(ObjectBytesMax(header));
  const auto encoder =
      ObjectEncoder::Create(header, MadeCalibration(GeometryOf(header.shape)),
                            absl::MakeSpan(memory));
  EXPECT_EQ(encoder.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(JointHeaderTest, ForgedHeadsAreDataLoss) {
  ChunkOptions options;
  options.levels = LevelSet::Of(Level::kBase);
  const ObjectHeader header = HeaderOf(options);
  KvBuffer kv(options.shape, Layout::kTokenMajor);
  std::mt19937 random(5);
  kv.FillRandom(&random);
  const auto object = EncodeWith(
      MadeJointCalibration(GeometryOf(options.shape), 3), header, kv.view());
  for (const int heads : {0, 1, 2, 4, 255}) {
    std::vector<std::byte> forged = object;
    forged[35] = static_cast<std::byte>(heads);
    RepairPrefixCrc(absl::MakeSpan(forged));
    EXPECT_EQ(ObjectIndex::Parse(forged, forged.size()).status().code(),
              absl::StatusCode::kDataLoss)
        << heads;
  }
  std::vector<std::byte> older = object;
  older[6] = std::byte{3};
  RepairPrefixCrc(absl::MakeSpan(older));
  EXPECT_EQ(ObjectIndex::Parse(older, older.size()).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST(JointHeaderTest, ACalibrationOfOtherHeadsIsDataLoss) {
  ChunkOptions options;
  options.levels = LevelSet::Of(Level::kBase);
  KvBuffer kv(options.shape, Layout::kTokenMajor);
  const auto object =
      EncodeWith(MadeJointCalibration(GeometryOf(options.shape), 3),
                 HeaderOf(options), kv.view());
  const auto index = ObjectIndex::Parse(object, object.size());
  ASSERT_TRUE(index.ok());
  CalibrationSet set;
  set.Add(MadeJointCalibration(GeometryOf(options.shape), 1));
  EXPECT_EQ(set.ForObject(index->header()).status().code(),
            absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace kdn::codec
