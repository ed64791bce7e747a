#include "codec/calibration/calibration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "tests/codec/test_calibration.h"
#include "tests/codec/test_chunk.h"

namespace kdn::codec {
namespace {

using testing::HasSubstr;

constexpr Calibration::Geometry kGeometry = {
    .layers = 2, .kv_heads = 6, .head_dim = 64};

ObjectHeader HeaderWith(const Calibration::Geometry& geometry,
                        const CalibrationId& id) {
  ChunkOptions options;
  options.shape.layers = geometry.layers;
  options.shape.kv_heads = geometry.kv_heads;
  options.shape.head_dim = geometry.head_dim;
  ObjectHeader header = HeaderOf(options);
  header.calibration = id;
  return header;
}

TEST(Calibration, KeepsItsParts) {
  const CalibrationParts parts = PartsOf(kGeometry);
  const auto made = parts.Create();
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ((*made)->id(), parts.id);
  EXPECT_EQ((*made)->model(), parts.model);
  EXPECT_EQ((*made)->geometry(), kGeometry);
  EXPECT_EQ((*made)->tables().size(), parts.tables.size());
  // [layer][K|V][group]
  ASSERT_EQ(parts.streams.size(), 12u);
  EXPECT_EQ((*made)->Of(0, KvPart::kK, 2).classes[0].bands,
            parts.streams[2].classes[0].bands);
  EXPECT_EQ((*made)->Of(1, KvPart::kV, 1).classes[0].bands,
            parts.streams[10].classes[0].bands);
  EXPECT_NE(parts.streams[2].classes[0].bands,
            parts.streams[10].classes[0].bands);
}

TEST(CalibrationDeathTest, AskingForAStreamThatIsNotThereIsABug) {
  const auto made = MadeCalibration(kGeometry);
  EXPECT_DEATH(made->Of(2, KvPart::kK, 0), "no such stream");
}

TEST(Calibration, RefusesPartsThatDoNotFitTogether) {
  using Parts = CalibrationParts;
  const std::vector<std::function<void(Parts*)>> mistakes = {
      [](Parts* p) { p->streams.pop_back(); },
      [](Parts* p) { p->streams.resize(1); },
      [](Parts* p) { p->streams.clear(); },
      [](Parts* p) { p->geometry.layers = 3; },
      [](Parts* p) { p->geometry.head_dim = 128; },
      [](Parts* p) { p->tables.pop_back(); },
      [](Parts* p) { p->streams[3].mean.pop_back(); },
      [](Parts* p) { p->streams[3].classes[0].bands.pop_back(); },
      [](Parts* p) { p->streams[3].analysis = AnalysisMatrix(); },
      [](Parts* p) { p->streams[3].synthesis = SynthesisMatrix(); },
      [](Parts* p) { p->streams[3].classes[0].bands[1][2].tables[1] = 255; },
      [](Parts* p) { p->streams[11].classes[0].bands[0][0].shrink = 5; },
      [](Parts* p) { p->streams[11].classes[0].bands[0][1].shrink = 2; },
      [](Parts* p) { p->streams[11].classes[0].bands[0][2].shrink = 1; },
      // Only symbols below 128 have a frequency, so no mode can code zeros.
      [](Parts* p) {
        std::vector<uint16_t> frequencies(kRansSymbols, 0);
        std::fill_n(frequencies.begin(), 128, 32);
        p->tables[2] = *RansTable::Create(frequencies);
      }};
  ASSERT_TRUE(PartsOf(kGeometry).Create().ok());
  for (size_t i = 0; i < mistakes.size(); ++i) {
    CalibrationParts parts = PartsOf(kGeometry);
    mistakes[i](&parts);
    EXPECT_EQ(parts.Create().status().code(),
              absl::StatusCode::kInvalidArgument)
        << "mistake " << i;
  }
}

TEST(CalibrationSet, AnUnknownModelIsCodedWithoutCalibration) {
  CalibrationSet set;
  const auto first = set.ForModel(ModelFingerprint(), kGeometry);
  ASSERT_NE(first, nullptr);
  EXPECT_TRUE(first->id().is_zero());
  EXPECT_EQ(first->Of(0, KvPart::kK, 0).dim(), 128);
  // The built-in calibration is made once and shared.
  Calibration::Geometry deeper = kGeometry;
  deeper.layers = 40;
  EXPECT_EQ(set.ForModel(MadeCalibration(kGeometry)->model(), deeper), first);
  Calibration::Geometry other = kGeometry;
  other.head_dim = 80;
  EXPECT_EQ(set.ForModel(ModelFingerprint(), other)->Of(0, KvPart::kK, 0).dim(),
            80);
}

TEST(CalibrationSet, AModelOfTooManyDimensionsCannotBeTransformCoded) {
  CalibrationSet set;
  EXPECT_NE(set.ForModel(ModelFingerprint(), {1, 1, kTransformDimMax}),
            nullptr);
  EXPECT_EQ(set.ForModel(ModelFingerprint(), {1, 1, kTransformDimMax + 1}),
            nullptr);
}

// A calibration whose id begins with `id`, made `seconds` after 1970.
std::shared_ptr<const Calibration> MadeAt(uint8_t id, int seconds) {
  CalibrationParts parts = PartsOf(kGeometry, id);
  parts.created = absl::FromUnixSeconds(seconds);
  return *parts.Create();
}

TEST(CalibrationSet, NewObjectsGetTheNewestCalibrationAndOldObjectsTheirOwn) {
  CalibrationSet set;
  const auto older = MadeAt(2, 10);
  const auto newer = MadeAt(1, 11);
  set.Add(older);
  EXPECT_EQ(set.ForModel(older->model(), kGeometry), older);
  set.Add(newer);
  EXPECT_EQ(set.ForModel(older->model(), kGeometry), newer);
  for (const auto& calibration : {older, newer}) {
    const auto found = set.ForObject(HeaderWith(kGeometry, calibration->id()));
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(*found, calibration);
  }
}

TEST(CalibrationSet, TheChoiceDoesNotDependOnTheOrderOfArrival) {
  // Two of equal age: the larger id counts.
  std::vector<std::shared_ptr<const Calibration>> all = {
      MadeAt(3, 0), MadeAt(1, 7), MadeAt(2, 7)};
  const auto expected = all.back();
  std::vector<size_t> order = {0, 1, 2};
  do {
    CalibrationSet set;
    for (const size_t i : order) set.Add(all[i]);
    EXPECT_EQ(set.ForModel(expected->model(), kGeometry), expected);
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST(CalibrationSet, AModelOfAnotherShapeGetsTheBuiltInCalibration) {
  CalibrationSet set;
  const auto made = MadeCalibration(kGeometry);
  set.Add(made);
  Calibration::Geometry other = kGeometry;
  other.layers = 3;
  const auto found = set.ForModel(made->model(), other);
  ASSERT_NE(found, nullptr);
  EXPECT_TRUE(found->id().is_zero());
}

TEST(CalibrationSet, AnObjectNeedsItsCalibrationToBeAdded) {
  CalibrationSet set;
  const auto made = MadeCalibration(kGeometry, 9);
  const ObjectHeader header = HeaderWith(kGeometry, made->id());
  const auto missing = set.ForObject(header);
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(missing.status().message()),
              HasSubstr(ShortHex(made->id())));
  EXPECT_EQ(MissingCalibrationIn(missing.status()), made->id());
  EXPECT_EQ(MissingCalibrationIn(absl::FailedPreconditionError("other")),
            std::nullopt);
  set.Add(made);
  EXPECT_TRUE(set.ForObject(header).ok());
}

TEST(CalibrationSet, AnObjectOfAnotherShapeThanItsCalibrationIsDamaged) {
  CalibrationSet set;
  const auto made = MadeCalibration(kGeometry);
  set.Add(made);
  Calibration::Geometry other = kGeometry;
  other.kv_heads = 4;
  EXPECT_EQ(set.ForObject(HeaderWith(other, made->id())).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST(CalibrationSet, AnObjectMayNeedTheBuiltInCalibrationOrNone) {
  CalibrationSet set;
  ObjectHeader header = HeaderWith(kGeometry, CalibrationId());
  const auto built_in = set.ForObject(header);
  ASSERT_TRUE(built_in.ok());
  ASSERT_NE(*built_in, nullptr);
  EXPECT_TRUE((*built_in)->id().is_zero());
  EXPECT_EQ(*built_in, set.ForModel(ModelFingerprint(), kGeometry));
  header.levels = LevelSet::Of(Level::kInt8).With(Level::kLossless);
  const auto none = set.ForObject(header);
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(*none, nullptr);
}

TEST(CalibrationSetDeathTest, AnAddedCalibrationHasAnId) {
  CalibrationSet set;
  EXPECT_DEATH(set.Add(Calibration::Uncalibrated(kGeometry)), "has an id");
}

TEST(CalibrationSet, TheIdOfTheCalibrationIsInTheObject) {
  const auto made = MadeCalibration({2, 3, 8}, 5);
  const ObjectHeader header = HeaderOf({});
  std::mt19937 rng(1);
  KvBuffer kv(header.shape, Layout::kTokenMajor);
  kv.FillRandom(&rng);
  const auto object = EncodeWith(made, header, kv.view());
  const auto index = ObjectIndex::Parse(object, object.size());
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_EQ(index->header().calibration, made->id());
  // An object without transform-coded levels names no calibration.
  ObjectHeader lossless = header;
  lossless.levels = LevelSet::Of(Level::kLossless);
  const auto plain = EncodeWith(made, lossless, kv.view());
  EXPECT_TRUE(
      ObjectIndex::Parse(plain, plain.size())->header().calibration.is_zero());
}

}  // namespace
}  // namespace kdn::codec
