// Decodes some heads of a chunk from the streams that hold them.

#include <gtest/gtest.h>

#include "codec/format/stream_layout.h"
#include "tests/codec/test_chunk.h"

namespace kdn::codec {
namespace {

// The bytes of LayerRanges, as a reader fetches them.
std::vector<std::byte> Fetch(const EncodedChunk& chunk, Level level, int layer,
                             int head_begin, int head_end) {
  std::vector<std::byte> streams;
  for (const ByteRange& range :
       chunk.index->LayerRanges(level, layer, head_begin, head_end)) {
    const auto begin = chunk.object.begin() + range.offset;
    streams.insert(streams.end(), begin, begin + range.bytes);
  }
  return streams;
}

class SliceTest : public testing::TestWithParam<Level> {};

// Decoding any slice of heads, from fetched ranges or from the whole object,
// gives the same rows as decoding all heads.
TEST_P(SliceTest, SlicesOfHeadsEqualTheWhole) {
  const Level level = GetParam();
  const ChunkOptions options;
  const EncodedChunk chunk(options, Layout::kHeadMajor);
  const auto wanted = Shifted(chunk.header.positions, 7);
  const ObjectDecoder decoder = chunk.Decoder(wanted);
  KvBuffer whole(options.shape, Layout::kTokenMajor);
  ASSERT_TRUE(DecodeAll(chunk.object, level, wanted, whole.view()).ok());
  for (int layer = 0; layer < options.shape.layers; ++layer) {
    for (int begin = 0; begin < options.shape.kv_heads; ++begin) {
      for (int end = begin + 1; end <= options.shape.kv_heads; ++end) {
        KvShape shape = options.shape;
        shape.layers = 1;
        shape.kv_heads = end - begin;
        const KvView expected(whole.view().At(layer, KvPart::kK, begin, 0),
                              shape, whole.view().strides());
        KvBuffer by_ranges(shape, Layout::kPadded);
        KvBuffer picked(shape, Layout::kHeadMajor);
        ASSERT_TRUE(decoder
                        .DecodeLayer(level, layer, begin, end,
                                     Fetch(chunk, level, layer, begin, end),
                                     by_ranges.view())
                        .ok());
        ASSERT_TRUE(decoder
                        .DecodeLayerOf(chunk.object, level, layer, begin, end,
                                       picked.view())
                        .ok());
        EXPECT_TRUE(SameElements(expected, by_ranges.view()));
        EXPECT_TRUE(SameElements(expected, picked.view()));
      }
    }
  }
}

TEST_P(SliceTest, StreamsOfAnotherLengthOrContentAreDataLoss) {
  const Level level = GetParam();
  const EncodedChunk chunk(ChunkOptions{}, Layout::kTokenMajor);
  const ObjectDecoder decoder = chunk.Decoder(chunk.header.positions);
  KvBuffer decoded(chunk.header.shape, Layout::kTokenMajor);
  const auto decode = [&](const std::vector<std::byte>& streams) {
    return decoder.DecodeLayer(level, 1, 0, 3, streams, decoded.view().Layer(1))
        .code();
  };
  std::vector<std::byte> streams = Fetch(chunk, level, 1, 0, 3);
  EXPECT_EQ(decode(streams), absl::StatusCode::kOk);
  streams.push_back(std::byte{0});
  EXPECT_EQ(decode(streams), absl::StatusCode::kDataLoss);
  streams.pop_back();
  for (size_t bytes = 0; bytes < streams.size(); bytes += 13) {
    EXPECT_EQ(decode({streams.begin(), streams.begin() + bytes}),
              absl::StatusCode::kDataLoss);
  }
  EXPECT_EQ(decode(Fetch(chunk, level, 0, 0, 3)), absl::StatusCode::kDataLoss);
}

INSTANTIATE_TEST_SUITE_P(Levels, SliceTest,
                         testing::ValuesIn(LevelsOf(kApartLevels)));

}  // namespace
}  // namespace kdn::codec
