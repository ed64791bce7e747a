// Golden objects of every version decode to the same rows for ever, with every
// instruction set.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "codec/calibration/calibration_format.h"
#include "codec/decoder.h"
#include "codec/format/header_check.h"
#include "codec/format/stream_layout.h"
#include "tests/codec/golden/golden_digests.h"
#include "tests/codec/supported_isas.h"
#include "tests/codec/test_chunk.h"

namespace kdn::codec {
namespace {

using testing::ElementsAreArray;

constexpr char kFolder[] = KDN_SOURCE_DIR "/tests/codec/golden/";

// The files of one version of the format.
class GoldenTest : public testing::TestWithParam<int> {
 protected:
  GoldenTest() {
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      const std::string path = entry.path();
      if (absl::EndsWith(path, ".kdnobj")) {
        objects_[entry.path().stem()] = ReadWholeFile(path);
      }
      if (!absl::EndsWith(path, ".kdncal")) continue;
      const auto calibration = ParseCalibration(ReadWholeFile(path));
      EXPECT_TRUE(calibration.ok()) << path << " " << calibration.status();
      if (calibration.ok()) calibrations_.Add(*calibration);
    }
    std::ifstream lines(absl::StrCat(folder_, "/digests"));
    std::string line;
    while (std::getline(lines, line)) {
      const size_t space = line.find(' ');
      digests_[line.substr(0, space)].push_back(line.substr(space + 1));
    }
  }

  const std::string folder_ = absl::StrCat(kFolder, GetParam());
  CalibrationSet calibrations_;
  // Keyed by the name of the object's file, without its suffix.
  std::map<std::string, std::vector<std::byte>> objects_;
  std::map<std::string, std::vector<std::string>> digests_;
};

TEST_P(GoldenTest, DecodesToTheSameBitsForEver) {
  ASSERT_GE(objects_.size(), 10u);
  ASSERT_EQ(objects_.size(), digests_.size());
  for (const auto& [name, object] : objects_) {
    for (const Isa isa : IsasUnderTest()) {
      EXPECT_THAT(DigestsOf(object, &calibrations_, isa),
                  ElementsAreArray(digests_[name]))
          << name << " with " << Name(isa);
    }
  }
}

TEST_P(GoldenTest, HasEveryLevelOfEveryDtype) {
  std::set<std::pair<Dtype, Level>> seen;
  std::set<Dtype> calibrated;
  for (const auto& [name, object] : objects_) {
    uint16_t version;
    std::memcpy(&version, object.data() + 6, sizeof(version));
    EXPECT_EQ(version, GetParam()) << name;
    const auto index = ObjectIndex::Parse(object, object.size());
    ASSERT_TRUE(index.ok()) << name << " " << index.status();
    const ObjectHeader& header = index->header();
    if (!CheckSupported(header).ok()) continue;
    for (const Level level : LevelsOf(header.levels)) {
      seen.insert({header.shape.dtype, level});
    }
    if (!header.calibration.is_zero()) calibrated.insert(header.shape.dtype);
  }
  const LevelSet levels = GetParam() < 4 ? kApartLevels : LevelSet::All();
  EXPECT_EQ(seen.size(), 3u * LevelsOf(levels).size());
  EXPECT_EQ(calibrated.size(), 3u);
}

// The first byte of a stream gives its form, at all levels but int8.
TEST_P(GoldenTest, HasEveryFormOfStream) {
  std::set<std::pair<Level, int>> forms;
  for (const auto& [name, object] : objects_) {
    const auto index = ObjectIndex::Parse(object, object.size());
    ASSERT_TRUE(index.ok()) << name << " " << index.status();
    const ObjectHeader& header = index->header();
    if (!CheckSupported(header).ok()) continue;
    for (const StreamGroup& group : GroupsOf(header.shape, header.levels)) {
      if (group.level == Level::kInt8) continue;
      for (const StreamId& id : StreamsOf(GridOf(header), group)) {
        const StreamEntry& entry = index->Entry(id);
        if (entry.bytes == 0) continue;  // V, whose rows are in a stream of K
        forms.insert({id.level, static_cast<int>(object[entry.offset])});
      }
    }
  }
  std::set<std::pair<Level, int>> expected = {
      {Level::kLossless, 0}, {Level::kLossless, 1}, {Level::kBase, 0},
      {Level::kBase, 1},     {Level::kBase1, 0},    {Level::kBase1, 2},
      {Level::kBase2, 0},    {Level::kBase2, 2}};
  if (GetParam() >= 4) {
    expected.insert({{Level::kArchive, 0}, {Level::kArchive, 1}});
  }
  EXPECT_EQ(forms, expected);
}

TEST_P(GoldenTest, EveryFlippedBitIsFound) {
  std::vector<std::byte> object = objects_.at("few-tokens");
  for (size_t bit = 0; bit < 8 * object.size(); ++bit) {
    object[bit / 8] ^= std::byte{1} << bit % 8;
    const auto index = ObjectIndex::Parse(object, object.size());
    EXPECT_TRUE(absl::IsDataLoss(index.ok() ? VerifyObject(*index, object)
                                            : index.status()))
        << "bit " << bit;
    object[bit / 8] ^= std::byte{1} << bit % 8;
  }
}

// The digests leave out K that is coded before RoPE at other positions than the
// origin. At another position, such K is the K of the origin, turned. The test
// uses fp32, because no rounding to the dtype comes between.
TEST_P(GoldenTest, KElsewhereIsKOfTheOriginTurned) {
  int chunks = 0;
  for (const auto& [name, object] : objects_) {
    const auto index = ObjectIndex::Parse(object, object.size());
    ASSERT_TRUE(index.ok()) << name << " " << index.status();
    const ObjectHeader& header = index->header();
    if (header.shape.dtype != Dtype::kFp32) continue;
    ++chunks;
    const auto calibration = calibrations_.ForObject(header);
    ASSERT_TRUE(calibration.ok()) << calibration.status();
    const RopeTable rope(header.rope);
    std::vector<float> cos(rope.pairs());
    std::vector<float> sin(rope.pairs());
    for (const Level level : LevelsOf(header.levels)) {
      if (level == Level::kLossless) continue;
      KvBuffer origin(header.shape, Layout::kTokenMajor);
      KvBuffer stored(header.shape, Layout::kTokenMajor);
      ASSERT_TRUE(DecodeAllWith(*calibration, object, level,
                                std::vector<int32_t>(header.shape.tokens, 0),
                                origin.view())
                      .ok());
      ASSERT_TRUE(DecodeAllWith(*calibration, object, level, header.positions,
                                stored.view())
                      .ok());
      for (int token = 0; token < header.shape.tokens; ++token) {
        rope.CosSin(header.positions[token], cos.data(), sin.data());
        for (int head = 0; head < header.shape.kv_heads; ++head) {
          std::vector<float> k = origin.Row(0, KvPart::kK, head, token);
          rope.Rotate(cos.data(), sin.data(), k.data());
          EXPECT_EQ(k, stored.Row(0, KvPart::kK, head, token))
              << name << " " << Name(level) << " token " << token;
        }
      }
    }
  }
  EXPECT_EQ(chunks, 2);
}

// The rows of a stream do not depend on the object's version.
TEST(Golden, RowsOfTheSameKvAreTheSameInEveryVersion) {
  std::map<std::string, std::string> rows;  // by chunk, level and positions
  for (const int version : {2, 3}) {
    std::ifstream lines(absl::StrCat(kFolder, version, "/digests"));
    std::string line;
    while (std::getline(lines, line)) {
      const size_t space = line.rfind(' ');
      const std::string what = line.substr(0, space);
      if (absl::EndsWith(what, " object")) continue;
      const auto [at, first] = rows.insert({what, line.substr(space)});
      EXPECT_EQ(at->second, line.substr(space)) << what;
    }
  }
}

// Objects of later versions have fields that objects of version 2 lack.
TEST(Golden, HaveTheFieldsOfTheirVersion) {
  const auto header_of = [](const std::string& file) {
    const auto object = ReadWholeFile(kFolder + file);
    return ObjectIndex::Parse(object, object.size())->header();
  };
  EXPECT_EQ(header_of("2/chained-edited.kdnobj").depth, std::nullopt);
  EXPECT_EQ(header_of("3/chained-edited.kdnobj").depth, 18u);
  EXPECT_EQ(header_of("3/bf16.kdnobj").depth, 0u);
  EXPECT_EQ(header_of("3/sections.kdnobj").sections.size(), 2u);
  EXPECT_EQ(header_of("3/bf16.kdnobj").joint_heads, 0);
  EXPECT_EQ(header_of("4/bf16.kdnobj").joint_heads, 1);
  EXPECT_EQ(header_of("4/archive-only.kdnobj").joint_heads, 2);
  EXPECT_EQ(header_of("4/chained-sections.kdnobj").depth, 18u);
  const ObjectHeader unsupported =
      header_of("3/layers-and-parts-differ.kdnobj");
  EXPECT_EQ(unsupported.shape.v_head_dim, 24);
  EXPECT_EQ(unsupported.layer_ropes.at(2).theta, 1e6);
  EXPECT_EQ(CheckSupported(unsupported).code(),
            absl::StatusCode::kUnimplemented);
}

INSTANTIATE_TEST_SUITE_P(Versions, GoldenTest, testing::Values(2, 3, 4));

}  // namespace
}  // namespace kdn::codec
