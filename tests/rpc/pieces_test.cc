// Tests of the pure parts: the order of layers, and packing.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "rpc/client/kv_copy.h"
#include "rpc/gateway/layer_order.h"
#include "tests/rpc/gateway/fixture.h"

namespace kdn::rpc {
namespace {

TEST(LayerOrderTest, LayersThatCompleteInAnyOrderAreGivenInOrder) {
  constexpr int kChunks = 5, kLayers = 7;
  std::mt19937_64 random(kSeed);
  for (int round = 0; round < 50; ++round) {
    std::vector<LayerOrder::Ready> in;
    for (int c = 0; c < kChunks; ++c) {
      for (int l = 0; l < kLayers; ++l) in.push_back({c, l});
    }
    in.insert(in.end(), in.begin(), in.begin() + 6);  // some complete twice
    std::shuffle(in.begin(), in.end(), random);
    LayerOrder order(kChunks, kLayers);
    std::vector<LayerOrder::Ready> out;
    for (const auto& ready : in) order.Complete(ready.chunk, ready.layer, out);
    ASSERT_EQ(out.size(), static_cast<size_t>(kChunks * kLayers));
    std::vector<int> next(kChunks);
    for (const auto& ready : out) {
      EXPECT_EQ(ready.layer, next[ready.chunk]++) << "seed " << kSeed;
    }
    EXPECT_EQ(order.given(2), kLayers);
  }
}

TEST(LayerOrderTest, AMissingLayerHoldsBackTheLayersBehindIt) {
  LayerOrder order(1, 3);
  std::vector<LayerOrder::Ready> out;
  order.Complete(0, 2, out);
  order.Complete(0, 1, out);
  EXPECT_TRUE(out.empty());
  order.Complete(0, 0, out);
  EXPECT_EQ(out.size(), 3u);
}

TEST(LayerOrderTest, RunsAreGivenWhenAllTheirLayersAreComplete) {
  LayerOrder order(2, 5, /*run=*/2);
  std::vector<LayerOrder::Ready> out;
  order.Complete(1, 1, out);
  order.Complete(1, 2, out);
  order.Complete(1, 3, out);
  EXPECT_TRUE(out.empty()) << "layer 0 is missing";
  order.Complete(1, 0, out);
  using Ready = LayerOrder::Ready;
  EXPECT_EQ(out, (std::vector<Ready>{{1, 0, 2}, {1, 2, 2}}));
  order.Complete(1, 4, out);
  EXPECT_EQ(out.back(), (Ready{1, 4, 1})) << "the last run has one layer";
  EXPECT_EQ(order.given(1), 5);
  EXPECT_EQ(order.given(0), 0);
}

TEST(KvCopyTest, PackThenUnpackIsTheSameInEveryLayout) {
  const TestChunk chunk = MakeChunk(*Namespace::Parse("t"), TestModel(), 3, 6);
  const KvView layer = chunk.view().Layer(1);
  for (DenseLayout wire : {DenseLayout::kTokenMajor, DenseLayout::kHeadMajor}) {
    std::vector<std::byte> packed(layer.shape().layer_bytes());
    PackLayer(layer, wire, packed.data());
    const KvView as_packed(packed.data(), layer.shape(),
                           StridesOf(wire, layer.shape()));
    EXPECT_TRUE(SameKv(as_packed, chunk, KvSlice{1, 2, 0, 2}));
    KvStrides padded = KvStrides::TokenMajor(layer.shape());
    padded.head += 6;
    padded.token = padded.head * 3;
    padded.part = padded.token * 9;
    Landing landing = MakeLanding(layer.shape(), padded, 4096);
    UnpackLayer(packed.data(), wire, landing.view);
    EXPECT_TRUE(SameKv(landing.view, chunk, KvSlice{1, 2, 0, 2}));
  }
}

TEST(KvCopyTest, FootprintAndNearestLayout) {
  KvShape shape{1, 2, 3, 8, Dtype::kBf16};
  const KvStrides tokens = KvStrides::TokenMajor(shape);
  const KvStrides heads = KvStrides::HeadMajor(shape);
  EXPECT_EQ(NearestLayout(tokens), DenseLayout::kTokenMajor);
  EXPECT_EQ(NearestLayout(heads), DenseLayout::kHeadMajor);
  std::byte memory[1024];
  EXPECT_EQ(FootprintOf(KvView(memory, shape, tokens)), shape.layer_bytes());
  KvStrides padded = heads;
  padded.part += 100;
  EXPECT_EQ(FootprintOf(KvView(memory, shape, padded)),
            shape.layer_bytes() + 100);
}

}  // namespace
}  // namespace kdn::rpc
