#include "bench/quality.h"

#include <gtest/gtest.h>

#include "bench/baselines.h"
#include "bench/gaussian_source.h"
#include "bench/own_levels.h"

namespace kdn::bench {
namespace {

using Positions = absl::Span<const int32_t>;

class QualityTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    // The least that fills one long context, because sanitizers make the model
    // slow.
    auto bed = QualityBed::Create(KDN_SOURCE_DIR "/model/recall", {},
                                  {.instances = 18, .questions = 1});
    ASSERT_TRUE(bed.ok()) << bed.status();
    bed_ = new QualityBed(*std::move(bed));
  }
  static void TearDownTestSuite() { delete bed_; }
  static Quality Of(
      std::function<absl::StatusOr<Coded>(const KvTensor&, Positions)> code) {
    const auto quality = bed_->Measure({"", "", std::move(code)}, 256);
    EXPECT_TRUE(quality.ok()) << quality.status();
    return *quality;
  }
  static QualityBed* bed_;
};
QualityBed* QualityTest::bed_ = nullptr;

TEST_F(QualityTest, ExactKvIsPerfect) {
  const Quality quality = Of([](const KvTensor& kv, Positions) {
    return Coded{kv, 2 * kv.size()};
  });
  EXPECT_EQ(quality.bits_per_value, 16);
  EXPECT_EQ(quality.kl_mean, 0);
  EXPECT_EQ(quality.top1, 1);
  EXPECT_GT(quality.accuracy, 0.98);
}

TEST_F(QualityTest, NoKvIsNoKnowledge) {
  const Quality quality = Of([](const KvTensor& kv, Positions) {
    return Coded{KvTensor(kv.shape())};
  });
  EXPECT_EQ(quality.bits_per_value, 0);
  EXPECT_GT(quality.kl_mean, 1);
  EXPECT_LT(quality.accuracy, 0.1);
}

TEST_F(QualityTest, OwnLevelsKeepWhatTheyPromise) {
  const RopeSpec rope = bed_->spec().rope;
  const auto at = [&](Level level) {
    return Of([=](const KvTensor& kv, Positions positions) {
      return OwnLevel(level, nullptr, rope, kv, positions);
    });
  };
  EXPECT_EQ(at(Level::kLossless).kl_mean, 0);
  const Quality int8 = at(Level::kInt8);
  EXPECT_GT(int8.kl_mean, 0);
  EXPECT_LT(int8.kl_mean, 1e-3);
  EXPECT_LT(int8.bits_per_value, 9);
}

TEST(GaussianSource, NoCodeBeatsItsBound) {
  for (const double tau : {8.0, 32.0}) {
    GaussianSource source(64, tau, 3);
    const KvTensor kv = source.Draw(512);
    for (int bits : {2, 4}) {
      const Coded coded = Kivi(kv, bits);
      EXPECT_GT(8.0 * coded.bytes / kv.size(),
                source.RateOf(NormalizedError(kv, coded.kv)));
    }
  }
}

TEST(GaussianSource, AFlatSpectrumHasTheRateOfShannon) {
  GaussianSource source(32, 1e9, 3);
  EXPECT_NEAR(source.RateOf(0.25), 1.0, 1e-3);
  EXPECT_NEAR(source.RateOf(1.0 / 16), 2.0, 1e-3);
}

}  // namespace
}  // namespace kdn::bench
