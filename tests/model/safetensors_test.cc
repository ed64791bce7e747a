#include "model/safetensors.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

namespace kdn::model {
namespace {

namespace fs = std::filesystem;

class SafetensorsTest : public testing::Test {
 protected:
  SafetensorsTest() {
    directory_ = testing::TempDir() + "/safetensors-XXXXXX";
    EXPECT_NE(mkdtemp(directory_.data()), nullptr);
  }
  ~SafetensorsTest() override { fs::remove_all(directory_); }

  void Write(const std::string& header, const std::string& data,
             const std::string& name = "model.safetensors") {
    const uint64_t length = header.size();
    std::ofstream file(directory_ + "/" + name, std::ios::binary);
    file.write(reinterpret_cast<const char*>(&length), sizeof(length));
    file << header << data;
  }
  absl::Status OpenStatus() { return Checkpoint::Open(directory_).status(); }
  std::string directory_;
};

constexpr char kOne[] =
    R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";

TEST_F(SafetensorsTest, ReadsATensor) {
  Write(kOne, std::string("\0\0\x80\x3f\0\0\0\x40", 8));
  const auto checkpoint = Checkpoint::Open(directory_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(*checkpoint->GetFloats("w", {2}), (std::vector<float>{1, 2}));
  EXPECT_TRUE(
      absl::IsInvalidArgument(checkpoint->GetFloats("w", {3}).status()));
  EXPECT_TRUE(
      absl::IsInvalidArgument(checkpoint->GetFloats("v", {2}).status()));
  EXPECT_EQ(checkpoint->digest().size(), 64u);
}

TEST_F(SafetensorsTest, EveryLieOfTheHeaderIsCaught) {
  const std::string data(8, 'x');
  for (
      const char* header :
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,9]}})",
       R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})",
       R"({"w":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})",
       R"({"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}})",
       R"({"w":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})",
       R"({"w":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})",
       R"({"w":{"dtype":"F32","shape":[2]}})", R"({"w":7})", "[]", "{"}) {
    Write(header, data);
    EXPECT_TRUE(absl::IsInvalidArgument(OpenStatus())) << header;
  }
}

TEST_F(SafetensorsTest, AbsurdHeaderLengthsAndShortFiles) {
  const uint64_t absurd = uint64_t{1} << 60;
  std::ofstream(directory_ + "/model.safetensors", std::ios::binary)
      .write(reinterpret_cast<const char*>(&absurd), sizeof(absurd));
  EXPECT_TRUE(absl::IsInvalidArgument(OpenStatus()));
  std::ofstream(directory_ + "/model.safetensors") << "abc";
  EXPECT_TRUE(absl::IsInvalidArgument(OpenStatus()));
}

TEST_F(SafetensorsTest, AnIndexNamesItsShards) {
  Write(kOne, std::string(8, '\0'), "a.safetensors");
  std::ofstream(directory_ + "/model.safetensors.index.json")
      << R"({"weight_map":{"w":"a.safetensors"}})";
  EXPECT_TRUE(OpenStatus().ok()) << OpenStatus();
  std::ofstream(directory_ + "/model.safetensors.index.json")
      << R"({"weight_map":{"w":"b.safetensors"}})";
  EXPECT_TRUE(absl::IsNotFound(OpenStatus()));
  std::ofstream(directory_ + "/model.safetensors.index.json")
      << R"({"weight_map":{"w":"../a.safetensors"}})";
  EXPECT_TRUE(absl::IsInvalidArgument(OpenStatus())) << "leads out";
}

TEST_F(SafetensorsTest, AnEmptyDirectoryIsNotFound) {
  EXPECT_TRUE(absl::IsNotFound(OpenStatus()));
}

}  // namespace
}  // namespace kdn::model
