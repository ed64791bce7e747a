#include "cli/calibration_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "cli/temp_directory.h"
#include "codec/calibration/calibration_format.h"

namespace kdn::cli {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// The smallest calibration: it codes no component, so that every decoded value
// is its stream's mean.
std::vector<std::byte> Smallest(const std::string& model) {
  codec::StoredCalibration stored;
  stored.model = ModelFingerprint(DigestBuilder(model).Finish());
  stored.geometry = {.layers = 1, .kv_heads = 1, .head_dim = 16};
  codec::StoredTransform stream;
  stream.mean.assign(16, 0.5f);
  stream.synthesis.assign(16 * 16, 0);
  for (int i = 0; i < 16; ++i) stream.synthesis[17 * i] = 1;
  stream.classes[0].bands.resize(1);
  stored.streams.assign(2, stream);
  return codec::WriteCalibration(stored);
}

class CalibrationFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    auto made = TempDirectory::Create("/tmp", "kdn-calibrations-");
    ASSERT_TRUE(made.ok()) << made.status();
    directory_ = *std::move(made);
  }
  std::string PathOf(const std::string& name) const {
    return directory_.path() + "/" + name;
  }
  void Write(const std::string& name, const std::vector<std::byte>& bytes) {
    std::ofstream(PathOf(name), std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }
  std::string Refusal() const {
    const auto files = LoadCalibrations(directory_.path());
    EXPECT_FALSE(files.ok());
    return std::string(files.status().message());
  }
  int FilesLeft() const {
    const auto all = std::filesystem::directory_iterator(directory_.path());
    return static_cast<int>(std::distance(begin(all), end(all)));
  }
  TempDirectory directory_;
};

TEST_F(CalibrationFilesTest, AllOfADirectoryByName) {
  Write("b.kdncal", Smallest("b"));
  Write("a.kdncal", Smallest("a"));
  Write("notes.txt", {std::byte{1}});
  const auto files = LoadCalibrations(directory_.path());
  ASSERT_TRUE(files.ok()) << files.status();
  ASSERT_EQ(files->size(), 2u);
  EXPECT_EQ((*files)[0].path, PathOf("a.kdncal"));
  EXPECT_EQ((*files)[0].calibration->model(),
            ModelFingerprint(DigestBuilder("a").Finish()));
  EXPECT_EQ((*files)[1].path, PathOf("b.kdncal"));
  EXPECT_NE((*files)[0].calibration->id(), (*files)[1].calibration->id());
}

TEST_F(CalibrationFilesTest, AnEmptyDirectoryHasNone) {
  const auto files = LoadCalibrations(directory_.path());
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_TRUE(files->empty());
}

TEST_F(CalibrationFilesTest, ABadFileIsNamedWithTheReason) {
  Write("good.kdncal", Smallest("good"));
  std::vector<std::byte> damaged = Smallest("bad");
  damaged.back() ^= std::byte{1};
  Write("bad.kdncal", damaged);
  EXPECT_THAT(Refusal(),
              AllOf(HasSubstr(PathOf("bad.kdncal")), HasSubstr("checksum")));
  Write("bad.kdncal", {});
  EXPECT_THAT(Refusal(), AllOf(HasSubstr(PathOf("bad.kdncal")),
                               HasSubstr("does not begin with KDNCAL")));
  std::filesystem::remove(PathOf("bad.kdncal"));
  std::filesystem::create_directory(PathOf("folder.kdncal"));
  EXPECT_THAT(Refusal(), HasSubstr(PathOf("folder.kdncal")));
}

TEST_F(CalibrationFilesTest, AMissingDirectoryIsNamed) {
  const auto files = LoadCalibrations(PathOf("nowhere"));
  EXPECT_TRUE(absl::IsInvalidArgument(files.status())) << files.status();
  EXPECT_THAT(std::string(files.status().message()),
              AllOf(HasSubstr(PathOf("nowhere")), HasSubstr("No such file")));
}

TEST_F(CalibrationFilesTest, ASavedCalibrationLoadsAndReplacesTheOldFile) {
  const std::string path = PathOf("m.kdncal");
  for (const std::string model : {"first", "second"}) {
    ASSERT_TRUE(SaveCalibration(Smallest(model), path).ok());
    const auto file = LoadCalibration(path);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(file->calibration->model(),
              ModelFingerprint(DigestBuilder(model).Finish()));
  }
  EXPECT_EQ(FilesLeft(), 1) << "only the file is left";
}

TEST_F(CalibrationFilesTest, AFailedSaveNamesTheFileAndLeavesNothing) {
  const std::vector<std::byte> bytes = Smallest("m");
  for (const std::string name : {"nowhere/m.kdncal", "folder.kdncal"}) {
    std::filesystem::create_directory(PathOf("folder.kdncal"));
    const absl::Status status = SaveCalibration(bytes, PathOf(name));
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(PathOf(name)));
  }
  EXPECT_EQ(FilesLeft(), 1) << "only the folder is left";
}

}  // namespace
}  // namespace kdn::cli
