#include "model/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "kv/dtype.h"
#include "model/kv_cache.h"
#include "model/linear.h"

namespace kdn::model {
namespace {

using AllowedRule = std::function<bool(int row, int token)>;

// Random K and V of one layer, queries behind them, and their attention.
class Bed {
 public:
  Bed(Operand operand, int tokens, int rows, int dim, int group)
      : operand_(operand),
        tokens_(tokens),
        rows_(rows),
        dim_(dim),
        group_(group),
        cache_(SpecOf(operand, dim), tokens) {
    std::mt19937 random(static_cast<uint32_t>(tokens * 31 + dim));
    std::normal_distribution<float> normal;
    const Dtype dtype = cache_.view().shape().dtype;
    std::vector<float> row(dim);
    for (const KvPart part : {KvPart::kK, KvPart::kV}) {
      for (int head = 0; head < kKvHeads; ++head) {
        for (int token = 0; token < tokens; ++token) {
          for (float& value : row) value = normal(random);
          StoreFloats(dtype, row.data(), row.size(),
                      cache_.view().At(0, part, head, token));
        }
      }
    }
    const int width = kKvHeads * group * PaddedInner(dim);
    queries_.Resize(operand, rows, width);
    query_values_.assign(static_cast<size_t>(rows) * width, 0.0f);
    for (int i = 0; i < rows * width; ++i) {
      const bool pads = i % PaddedInner(dim) >= dim;
      query_values_[i] = pads ? 0.0f : Bf16ToFloat(FloatToBf16(normal(random)));
    }
    for (int i = 0; i < rows; ++i) {
      queries_.Write(i, 0, &query_values_[i * width], width);
    }
  }

  // Computes rows [begin, end) over the first `tokens` tokens.
  std::vector<float> Attend(const AllowedRule& rule, int begin, int end,
                            int tokens, std::vector<float>* mass = nullptr,
                            bool packs = false) {
    PackedKv kv;
    kv.Resize(operand_, kKvHeads, tokens, dim_);
    kv.Allocate();
    OperandRows out;
    out.Resize(Operand::kFp32, rows_, kKvHeads * group_ * dim_);
    if (mass != nullptr) mass->assign(kv.blocks() * kAttentionBlock, 0.0f);
    for (int head = 0; head < kKvHeads; ++head) {
      for (int block = 0; block < kv.blocks(); ++block) {
        kv.Pack(KvView(cache_.view()).Layer(0), head, block);
      }
      std::vector<uint64_t> allowed;
      for (int row = begin; row < end; ++row) {
        for (int block = 0; block < kv.blocks(); ++block) {
          uint64_t bits = 0;
          for (int i = 0; i < kAttentionBlock; ++i) {
            const int token = block * kAttentionBlock + i;
            const bool sees = token < tokens && rule(row, token);
            bits |= static_cast<uint64_t>(sees) << i;
          }
          allowed.push_back(bits);
        }
      }
      const KvView layer = KvView(cache_.view()).Layer(0);
      attention_.Attend({.kv = &kv,
                         .unpacked = packs ? &layer : nullptr,
                         .kv_head = head,
                         .group = group_,
                         .queries = &queries_,
                         .row = begin,
                         .rows = end - begin,
                         .allowed = allowed,
                         .out = &out,
                         .mass = mass == nullptr ? nullptr : mass->data()});
    }
    const int width = kKvHeads * group_ * dim_;
    std::vector<float> result;
    for (int row = begin; row < end; ++row) {
      const auto* values = static_cast<const float*>(out.At(row));
      result.insert(result.end(), values, values + width);
    }
    return result;
  }

  // softmax(q K^T / sqrt(dim)) V of one row and head, in fp64.
  std::vector<double> Expected(const AllowedRule& rule, int row, int head,
                               std::vector<double>* weights) const {
    const float* q =
        &query_values_[(row * kKvHeads * group_ + head) * PaddedInner(dim_)];
    std::vector<double> result(dim_, 0.0);
    weights->assign(tokens_, 0.0);
    double sum = 0.0;
    for (int token = 0; token < tokens_; ++token) {
      const std::vector<float> k = Row(KvPart::kK, head / group_, token);
      double score = 0.0;
      for (int i = 0; i < dim_; ++i) score += q[i] * k[i];
      if (rule(row, token))
        (*weights)[token] = std::exp(score / std::sqrt(dim_));
      sum += (*weights)[token];
    }
    for (int token = 0; token < tokens_ && sum > 0.0; ++token) {
      (*weights)[token] /= sum;
      const std::vector<float> v = Row(KvPart::kV, head / group_, token);
      for (int i = 0; i < dim_; ++i) result[i] += (*weights)[token] * v[i];
    }
    return result;
  }

  static constexpr int kKvHeads = 2;
  KvCache& cache() { return cache_; }

 private:
  static ModelSpec SpecOf(Operand operand, int dim) {
    ModelSpec spec;
    spec.num_layers = 1;
    spec.num_kv_heads = kKvHeads;
    spec.head_dim = dim;
    spec.dtype = operand == Operand::kFp32 ? Dtype::kFp32 : Dtype::kBf16;
    return spec;
  }
  std::vector<float> Row(KvPart part, int head, int token) const {
    std::vector<float> row(dim_);
    LoadFloats(cache_.view().shape().dtype,
               cache_.view().At(0, part, head, token), row.size(), row.data());
    return row;
  }

  Operand operand_;
  int tokens_, rows_, dim_, group_;
  KvCache cache_;
  OperandRows queries_;
  std::vector<float> query_values_;
  BlockAttention attention_;
};

class AttentionTest : public testing::TestWithParam<Compute> {
 protected:
  Operand operand() const { return OperandOf(GetParam()); }
  // bf16 rounds the weights of tokens to 8 bits.
  double tolerance() const {
    return GetParam() == Compute::kFp32 ? 1e-5 : 2e-2;
  }
};

TEST_P(AttentionTest, IsTheSoftmaxOverTheAllowedTokens) {
  const AllowedRule rule = [](int row, int token) {
    return token <= row * 7 && token % 3 != 1;
  };
  for (const int dim : {12, 13, 64, 80, 128}) {
    for (const int tokens : {1, 63, 64, 65, 200}) {
      Bed bed(operand(), tokens, 20, dim, 3);
      std::vector<float> mass;
      const std::vector<float> got = bed.Attend(rule, 0, 20, tokens, &mass);
      std::vector<double> mass_sum(tokens, 0.0);
      for (int row = 0; row < 20; ++row) {
        for (int head = 0; head < 3 * Bed::kKvHeads; ++head) {
          std::vector<double> weights;
          const auto expected = bed.Expected(rule, row, head, &weights);
          for (int i = 0; i < tokens; ++i) mass_sum[i] += weights[i];
          for (int i = 0; i < dim; ++i) {
            ASSERT_NEAR(got[(row * 3 * Bed::kKvHeads + head) * dim + i],
                        expected[i], tolerance())
                << dim << ' ' << tokens << ' ' << row << ' ' << head;
          }
        }
      }
      for (int i = 0; i < tokens; ++i) {
        ASSERT_NEAR(mass[i], mass_sum[i], 1e-3) << tokens << ' ' << i;
      }
    }
  }
}

TEST_P(AttentionTest, ARowHasTheSameBitsInEveryCall) {
  const AllowedRule causal = [](int row, int token) {
    return token <= 170 + row;
  };
  constexpr int kDim = 64;
  Bed bed(operand(), 202, 32, kDim, 3);
  const std::vector<float> all = bed.Attend(causal, 0, 32, 202);
  const size_t width = all.size() / 32;
  for (const auto& [begin, end] :
       {std::pair{0, 1}, std::pair{3, 8}, std::pair{20, 32}}) {
    // The tokens behind the last one that the rows attend to are not there.
    EXPECT_EQ(bed.Attend(causal, begin, end, 170 + end),
              std::vector<float>(all.begin() + begin * width,
                                 all.begin() + end * width))
        << begin;
  }
}

TEST_P(AttentionTest, ACallThatPacksGivesTheSameBits) {
  const AllowedRule causal = [](int row, int token) {
    return token <= 100 + row;
  };
  for (const int dim : {13, 64, 80}) {
    Bed bed(operand(), 131, 30, dim, 3);
    std::vector<float> mass;
    std::vector<float> packed_mass;
    EXPECT_EQ(bed.Attend(causal, 0, 30, 130, &mass),
              bed.Attend(causal, 0, 30, 130, &packed_mass, /*packs=*/true));
    EXPECT_EQ(mass, packed_mass);
  }
}

TEST_P(AttentionTest, MemoryBehindTheLastTokenDoesNotCount) {
  const AllowedRule every = [](int, int) { return true; };
  Bed bed(operand(), 100, 4, 64, 1);
  const std::vector<float> before = bed.Attend(every, 0, 4, 70);
  for (int head = 0; head < Bed::kKvHeads; ++head) {
    for (int token = 70; token < 100; ++token) {  // NaN in every dtype
      for (const KvPart part : {KvPart::kK, KvPart::kV}) {
        std::memset(bed.cache().view().At(0, part, head, token), 0xff,
                    bed.cache().view().shape().head_bytes());
      }
    }
  }
  EXPECT_EQ(bed.Attend(every, 0, 4, 70), before);
}

TEST_P(AttentionTest, WithoutAnAllowedTokenTheResultIsZero) {
  Bed bed(operand(), 70, 2, 64, 2);
  const AllowedRule second = [](int row, int) { return row == 1; };
  std::vector<float> mass;
  const std::vector<float> got = bed.Attend(second, 0, 2, 70, &mass);
  for (size_t i = 0; i < got.size() / 2; ++i) EXPECT_EQ(got[i], 0.0f);
  double sum = 0.0;
  for (const float each : mass) sum += each;
  EXPECT_NEAR(sum, 4.0, 1e-4) << "one row in four heads";
}

INSTANTIATE_TEST_SUITE_P(Computes, AttentionTest,
                         testing::Values(Compute::kFp32, Compute::kBf16));

}  // namespace
}  // namespace kdn::model
