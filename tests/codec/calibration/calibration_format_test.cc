#include "codec/calibration/calibration_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "kv/crc32c.h"

namespace kdn::codec {
namespace {

using testing::HasSubstr;

constexpr size_t kVersionOffset = 6;
constexpr size_t kCrcOffset = 8;
constexpr size_t kCrcEnd = 12;

// The smallest calibration: it codes no component.
StoredCalibration Smallest() {
  StoredCalibration stored;
  stored.geometry = {.layers = 1, .kv_heads = 1, .head_dim = 1};
  StoredTransform stream;
  stream.mean = {0.0f};
  stream.synthesis.assign(kBandComponents, 0);
  stream.classes[0].bands.resize(1);
  stored.streams = {stream, stream};
  return stored;
}

uint16_t VersionOf(const std::vector<std::byte>& file) {
  uint16_t version = 0;
  std::memcpy(&version, file.data() + kVersionOffset, sizeof(version));
  return version;
}

void RepairCrc(std::vector<std::byte>* file) {
  const auto bytes = absl::MakeConstSpan(*file);
  const uint32_t crc =
      ExtendCrc32c(Crc32c(bytes.first(kCrcOffset)), bytes.subspan(kCrcEnd));
  std::memcpy(file->data() + kCrcOffset, &crc, sizeof(crc));
}

TEST(CalibrationFormat, AFileWithoutInformationHasTheFirstVersion) {
  const std::vector<std::byte> file = WriteCalibration(Smallest());
  EXPECT_EQ(VersionOf(file), 1);
  const auto read = ReadCalibration(file);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(read->info.empty());
  EXPECT_EQ((*ParseCalibration(file))->created(), absl::UnixEpoch());
}

TEST(CalibrationFormat, TheCreationTimeIsInTheFile) {
  StoredCalibration stored = Smallest();
  stored.info.created = absl::FromUnixSeconds(1234567890);
  const std::vector<std::byte> file = WriteCalibration(stored);
  EXPECT_EQ(VersionOf(file), 2);
  const auto read = ReadCalibration(file);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->info, stored.info);
  EXPECT_EQ((*ParseCalibration(file))->created(), stored.info.created);
  EXPECT_EQ(WriteCalibration(*read), file);
}

TEST(CalibrationFormat, PartsOfASecondAreNotKept) {
  StoredCalibration stored = Smallest();
  stored.info.created = absl::FromUnixMillis(5999);
  EXPECT_EQ(ReadCalibration(WriteCalibration(stored))->info.created,
            absl::FromUnixSeconds(5));
}

TEST(CalibrationFormat, EntriesOfALaterVersionAreKept) {
  StoredCalibration stored = Smallest();
  stored.info.others = {{"zz.later-1_x", std::string("\0\1", 2)}, {"a", ""}};
  const std::vector<std::byte> file = WriteCalibration(stored);
  const auto read = ReadCalibration(file);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->info, stored.info);
  EXPECT_EQ(WriteCalibration(*read), file);
}

// Replaces `old_text` behind the transforms, and repairs the checksum.
std::vector<std::byte> With(std::vector<std::byte> file, std::string old_text,
                            std::string new_text) {
  std::string text(reinterpret_cast<const char*>(file.data()), file.size());
  const size_t at = text.rfind(old_text);
  EXPECT_NE(at, std::string::npos);
  text.replace(at, old_text.size(), new_text);
  file.resize(text.size());
  std::memcpy(file.data(), text.data(), text.size());
  RepairCrc(&file);
  return file;
}

TEST(CalibrationFormat, RefusesInformationThatNobodyWrites) {
  StoredCalibration stored = Smallest();
  stored.info.created = absl::FromUnixSeconds(7);
  stored.info.others = {{"bbb", "x"}, {"eee", "y"}};
  const std::vector<std::byte> file = WriteCalibration(stored);
  ASSERT_TRUE(ReadCalibration(file).ok());
  const std::string seven("\7\0\0\0\0\0\0\0", 8);
  const std::string three("\3\0\3bbb", 6);
  const std::vector<std::vector<std::byte>> wrong = {
      With(file, seven, std::string(8, '\0')),
      With(file, seven, std::string(8, '\xff')),
      With(file, "bbb", "fff"),
      With(file, "eee", "bbb"),
      With(file, "eee", "EEE"),
      With(file, "y", ""),
      With(file, "y", "yy"),
      With(file, three, std::string("\0\0\3bbb", 6)),
      With(file, three, std::string("\2\0\3bbb", 6)),
      With(file, three, std::string("\4\0\3bbb", 6)),
      With(file, three, std::string("\xff\0\3bbb", 6)),
      With(file, std::string("\1\0\0\0y", 5), std::string("\2\0\0\0y", 5)),
      With(file, std::string("\1\0\0\0y", 5), std::string("\0\0\1\0y", 5)),
      With(file, "\3eee", std::string("\0eee", 4)),
  };
  for (size_t i = 0; i < wrong.size(); ++i) {
    EXPECT_EQ(ReadCalibration(wrong[i]).status().code(),
              absl::StatusCode::kDataLoss)
        << "change " << i;
  }
}

TEST(CalibrationFormat, RefusesAVersionThatItDoesNotKnow) {
  std::vector<std::byte> file = WriteCalibration(Smallest());
  for (const uint16_t version : {uint16_t{0}, uint16_t{4}}) {
    std::memcpy(file.data() + kVersionOffset, &version, sizeof(version));
    RepairCrc(&file);
    EXPECT_THAT(std::string(ReadCalibration(file).status().message()),
                HasSubstr("expected 1 to 3"));
  }
}

}  // namespace
}  // namespace kdn::codec
