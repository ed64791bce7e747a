#include "cli/prefill_worker.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <vector>

namespace kdn::cli {
namespace {

const std::string kModel = KDN_SOURCE_DIR "/tests/model/fixtures/llama_gqa";

class PrefillWorkerTest : public testing::Test {
 protected:
  PrefillWorkerTest()
      : llama_(model::Llama::Load(kModel, {}).value()), tokens_(200) {
    for (int i = 0; i < 200; ++i) tokens_[i] = i % 90;
    positions_.resize(200);
    std::iota(positions_.begin(), positions_.end(), 0);
  }
  model::Sequence Part(model::KvCache& cache, int begin, int count) const {
    return {.cache = &cache,
            .tokens = absl::MakeConstSpan(tokens_).subspan(begin, count),
            .positions = absl::MakeConstSpan(positions_).subspan(begin, count)};
  }
  std::unique_ptr<model::Llama> llama_;
  std::vector<int32_t> tokens_;
  std::vector<int32_t> positions_;
};

TEST_F(PrefillWorkerTest, PassesOfOneCacheRunInTheirOrder) {
  model::KvCache cache(llama_->spec(), 200);
  model::KvCache expected(llama_->spec(), 200);
  {
    PrefillWorker worker(*llama_);
    std::vector<std::future<absl::Status>> passes;
    for (int begin = 0; begin < 200; begin += 50) {
      passes.push_back(worker.Push({Part(cache, begin, 50)}));
    }
    for (auto& pass : passes) EXPECT_TRUE(pass.get().ok());
  }
  ASSERT_TRUE(llama_->Prefill(expected, tokens_, positions_).ok());
  EXPECT_EQ(std::memcmp(cache.view().base(), expected.view().base(),
                        model::KvCache::BytesFor(llama_->spec(), 200)),
            0);
}

TEST_F(PrefillWorkerTest, AnErrorEndsOnePassOnly) {
  model::KvCache small(llama_->spec(), 10);
  model::KvCache large(llama_->spec(), 50);
  PrefillWorker worker(*llama_);
  auto fails = worker.Push({Part(small, 0, 50)});
  auto runs = worker.Push({Part(large, 0, 50)});
  EXPECT_TRUE(absl::IsResourceExhausted(fails.get()));
  EXPECT_TRUE(runs.get().ok());
}

TEST_F(PrefillWorkerTest, PassesThatHaveNotBegunAreDropped) {
  std::vector<model::KvCache> caches;
  for (int i = 0; i < 20; ++i) caches.emplace_back(llama_->spec(), 200);
  std::vector<std::future<absl::Status>> passes;
  {
    PrefillWorker worker(*llama_);
    for (model::KvCache& cache : caches) {
      passes.push_back(worker.Push({Part(cache, 0, 200)}));
    }
  }
  for (size_t i = 0; i < caches.size(); ++i) {
    const absl::Status status = passes[i].get();
    EXPECT_TRUE(status.ok() || absl::IsCancelled(status)) << status;
    EXPECT_EQ(caches[i].size(), status.ok() ? 200 : 0);
  }
}

}  // namespace
}  // namespace kdn::cli
