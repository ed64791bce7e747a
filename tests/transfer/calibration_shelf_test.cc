#include "transfer/calibration_shelf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "codec/calibration/calibration_format.h"

namespace kdn::transfer {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(2000000000);

using testing::HasSubstr;

// The smallest calibration of the model whose fingerprint begins with `model`.
std::vector<std::byte> FileOf(uint8_t model) {
  codec::StoredCalibration stored;
  std::array<uint8_t, ModelFingerprint::kSize> digest{};
  digest[0] = model;
  stored.model = ModelFingerprint(digest);
  stored.geometry = {.layers = 1, .kv_heads = 1, .head_dim = 1};
  codec::StoredTransform stream;
  stream.mean = {0.0f};
  stream.synthesis.assign(codec::kBandComponents, 0);
  stream.synthesis[0] = 1;
  stream.classes[0].bands.resize(1);
  stored.streams = {stream, stream};
  stored.info.created = absl::FromUnixSeconds(100 + model);
  return codec::WriteCalibration(stored);
}

class CalibrationShelfTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_NE(mkdtemp(directory_.data()), nullptr); }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  CalibrationShelf::Options OnDisk() const {
    return {.directory = directory_ + "/calibrations"};
  }
  std::string directory_ = "/tmp/kdn-shelf-XXXXXX";
  codec::CalibrationSet set_;
};

TEST_F(CalibrationShelfTest, KeepsACalibrationAcrossRestarts) {
  codec::CalibrationId id;
  {
    CalibrationShelf shelf(OnDisk(), &set_);
    ASSERT_TRUE(shelf.Open().ok());
    const auto kept = shelf.Keep(FileOf(1), kNow);
    ASSERT_TRUE(kept.ok()) << kept.status();
    id = kept->id;
    EXPECT_EQ(kept->created, absl::FromUnixSeconds(101));
    EXPECT_EQ(set_.ForModel(kept->model, {1, 1, 1})->id(), id);
  }
  codec::CalibrationSet later;
  CalibrationShelf shelf(OnDisk(), &later);
  ASSERT_TRUE(shelf.Open().ok());
  ASSERT_EQ(shelf.entries().size(), 1u);
  EXPECT_EQ(shelf.entries()[0].id, id);
  EXPECT_EQ(**shelf.BytesOf(id), FileOf(1));
  EXPECT_EQ(later.ForModel(shelf.entries()[0].model, {1, 1, 1})->id(), id);
}

TEST_F(CalibrationShelfTest, WithoutADirectoryTheBytesLieInMemory) {
  CalibrationShelf shelf({}, &set_);
  ASSERT_TRUE(shelf.Open().ok());
  const auto kept = shelf.Keep(FileOf(1), kNow);
  ASSERT_TRUE(kept.ok()) << kept.status();
  EXPECT_EQ(**shelf.BytesOf(kept->id), FileOf(1));
  EXPECT_TRUE(absl::IsNotFound(shelf.BytesOf(codec::CalibrationId()).status()));
}

// New objects use the calibration that was made last: one from the future would
// be that for ever.
TEST_F(CalibrationShelfTest, RefusesACalibrationFromTheFuture) {
  CalibrationShelf shelf({}, &set_);
  const absl::Time made = absl::FromUnixSeconds(101);
  const auto early = shelf.Keep(FileOf(1), made - absl::Hours(25));
  EXPECT_TRUE(absl::IsInvalidArgument(early.status())) << early.status();
  EXPECT_TRUE(shelf.entries().empty());
  EXPECT_TRUE(shelf.Keep(FileOf(1), made - absl::Hours(23)).ok());
}

TEST_F(CalibrationShelfTest, LeavesOutFilesThatAreNotItsOwn) {
  CalibrationShelf shelf(OnDisk(), &set_);
  ASSERT_TRUE(shelf.Open().ok());
  const auto kept = shelf.Keep(FileOf(1), kNow);
  ASSERT_TRUE(kept.ok()) << kept.status();
  const std::filesystem::path directory = OnDisk().directory;
  const auto other = shelf.Keep(FileOf(2), kNow);
  ASSERT_TRUE(other.ok()) << other.status();
  std::filesystem::rename(directory / (Hex(other->id) + ".kdncal"),
                          directory / "copied.kdncal");
  std::ofstream(directory / "a.kdncal.7.new") << "half";
  codec::CalibrationSet later;
  CalibrationShelf reopened(OnDisk(), &later);
  ASSERT_TRUE(reopened.Open().ok());
  ASSERT_EQ(reopened.entries().size(), 1u);
  EXPECT_EQ(reopened.entries()[0].id, kept->id);
  EXPECT_TRUE(std::filesystem::exists(directory / "copied.kdncal"));
  EXPECT_FALSE(std::filesystem::exists(directory / "a.kdncal.7.new"));
}

TEST_F(CalibrationShelfTest, TheSameCalibrationIsKeptOnce) {
  CalibrationShelf shelf({.count_max = 1}, &set_);
  const auto first = shelf.Keep(FileOf(1), kNow);
  const auto again = shelf.Keep(FileOf(1), kNow);
  ASSERT_TRUE(first.ok() && again.ok()) << again.status();
  EXPECT_EQ(first->id, again->id);
  EXPECT_EQ(shelf.entries().size(), 1u);
}

TEST_F(CalibrationShelfTest, BytesThatAreNoCalibrationChangeNothing) {
  CalibrationShelf shelf(OnDisk(), &set_);
  ASSERT_TRUE(shelf.Open().ok());
  std::vector<std::byte> bytes = FileOf(1);
  bytes.back() ^= std::byte{1};
  EXPECT_TRUE(absl::IsDataLoss(shelf.Keep(bytes, kNow).status()));
  EXPECT_TRUE(absl::IsDataLoss(shelf.Keep({}, kNow).status()));
  EXPECT_TRUE(shelf.entries().empty());
  EXPECT_TRUE(std::filesystem::is_empty(OnDisk().directory));
}

TEST_F(CalibrationShelfTest, APeersBytesMustHaveTheIdThatWasAskedFor) {
  CalibrationShelf shelf({}, &set_);
  const auto wrong = shelf.KeepAs(codec::CalibrationId(), FileOf(1));
  EXPECT_TRUE(absl::IsDataLoss(wrong.status())) << wrong.status();
  EXPECT_TRUE(shelf.entries().empty());
}

TEST_F(CalibrationShelfTest, TheLimitsAreNamed) {
  const size_t bytes = FileOf(1).size();
  CalibrationShelf few({.count_max = 1}, &set_);
  CalibrationShelf small({.bytes_max = bytes}, &set_);
  for (CalibrationShelf* shelf : {&few, &small}) {
    ASSERT_TRUE(shelf->Keep(FileOf(1), kNow).ok());
    const auto refused = shelf->Keep(FileOf(2), kNow);
    EXPECT_TRUE(absl::IsResourceExhausted(refused.status()))
        << refused.status();
    EXPECT_EQ(shelf->entries().size(), 1u);
    EXPECT_TRUE(shelf->KeepConfigured(FileOf(2)).ok());
  }
  EXPECT_THAT(std::string(small.Keep(FileOf(3), kNow).status().message()),
              HasSubstr("give the node more memory"));
}

TEST_F(CalibrationShelfTest, ADamagedFileDoesNotKeepTheNodeFromStarting) {
  std::filesystem::create_directories(OnDisk().directory);
  std::ofstream(OnDisk().directory + "/a.kdncal") << "no calibration";
  std::ofstream(OnDisk().directory + "/b.txt") << "another file";
  CalibrationShelf shelf(OnDisk(), &set_);
  EXPECT_TRUE(shelf.Open().ok());
  EXPECT_TRUE(shelf.entries().empty());
  EXPECT_TRUE(shelf.Keep(FileOf(1), kNow).ok());
}

TEST_F(CalibrationShelfTest, ADirectoryThatCannotBeMadeIsNamed) {
  std::ofstream(directory_ + "/calibrations") << "a file";
  CalibrationShelf shelf(OnDisk(), &set_);
  const absl::Status status = shelf.Open();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(directory_));
}

}  // namespace
}  // namespace kdn::transfer
