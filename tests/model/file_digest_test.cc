#include "model/file_digest.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "kv/digest.h"

namespace kdn::model {
namespace {

namespace fs = std::filesystem;

class FileDigestTest : public testing::Test {
 protected:
  FileDigestTest() : bytes_(kCachedBytesMin, 7) {
    directory_ = testing::TempDir() + "/file-digest-XXXXXX";
    EXPECT_NE(mkdtemp(directory_.data()), nullptr);
    path_ = directory_ + "/model.safetensors";
    cache_ = directory_ + "/cache/sha256";
    Write("one");
    expected_ = Sha256Of(bytes_);
  }
  ~FileDigestTest() override { fs::remove_all(directory_); }

  // The digest reads the bytes in memory, so the file itself may be short.
  void Write(const std::string& text) { std::ofstream(path_) << text; }

  std::string Digest(absl::Time now = absl::Now() + absl::Minutes(1)) {
    struct stat state {};
    EXPECT_EQ(stat(path_.c_str(), &state), 0);
    return HexOf(FileDigest({path_, state, bytes_}, cache_, now));
  }
  std::vector<fs::path> Entries() {
    std::vector<fs::path> entries;
    if (!fs::exists(cache_)) return entries;
    for (const auto& entry : fs::directory_iterator(cache_)) {
      if (entry.path().extension() == ".json") entries.push_back(entry.path());
    }
    return entries;
  }
  std::string Text(const fs::path& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::vector<uint8_t> bytes_;
  std::array<uint8_t, 32> expected_;
  std::string directory_, path_, cache_;
};

TEST_F(FileDigestTest, ALargeFileIsHashedOnce) {
  EXPECT_EQ(Digest(), HexOf(expected_));
  const std::vector<fs::path> entries = Entries();
  ASSERT_EQ(entries.size(), 1u);
  nlohmann::json kept = nlohmann::json::parse(Text(entries[0]));
  EXPECT_EQ(kept["path"], fs::canonical(path_).string());
  EXPECT_EQ(kept["size"], 3);
  EXPECT_EQ(kept["sha256"], HexOf(expected_));
  bytes_[0] = 8;  // not read again
  EXPECT_EQ(Digest(), HexOf(expected_));
}

TEST_F(FileDigestTest, AChangedFileIsHashedAgain) {
  Digest();
  Write("changed");
  bytes_[0] = 8;
  EXPECT_EQ(Digest(), HexOf(Sha256Of(bytes_)));
}

TEST_F(FileDigestTest, AFileThatHasJustChangedIsNotCached) {
  EXPECT_EQ(Digest(absl::Now()), HexOf(expected_));
  EXPECT_TRUE(Entries().empty());
}

TEST_F(FileDigestTest, ADamagedEntryIsHashedAgain) {
  Digest();
  const fs::path entry = Entries().at(0);
  for (const char* text : {"", "{", "[]", R"({"sha256": 7})",
                           R"({"sha256": "0123"})", R"({"path": "x"})"}) {
    std::ofstream(entry) << text;
    EXPECT_EQ(Digest(), HexOf(expected_)) << text;
    EXPECT_TRUE(nlohmann::json::parse(Text(entry)).contains("sha256"));
  }
}

TEST_F(FileDigestTest, ACacheThatCannotBeWrittenIsLeftOut) {
  std::ofstream(directory_ + "/cache") << "a file";
  EXPECT_EQ(Digest(), HexOf(expected_));
  cache_.clear();
  EXPECT_EQ(Digest(), HexOf(expected_));
}

TEST_F(FileDigestTest, SmallFilesAreNotCached) {
  bytes_.pop_back();
  EXPECT_EQ(Digest(), HexOf(Sha256Of(bytes_)));
  EXPECT_TRUE(Entries().empty());
}

TEST_F(FileDigestTest, TheHubsCacheNamesFilesByTheirDigest) {
  const std::string name(64, 'a');
  fs::create_directory(directory_ + "/blobs");
  std::ofstream(directory_ + "/blobs/" + name) << "never read";
  fs::remove(path_);
  fs::create_symlink("blobs/" + name, path_);
  EXPECT_EQ(Digest(), name);
}

TEST_F(FileDigestTest, OneOfSeveralHashesAndTheOthersRead) {
  std::vector<std::string> digests(4);
  std::vector<std::thread> threads;
  for (std::string& digest : digests) {
    threads.emplace_back([this, &digest] { digest = Digest(); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& digest : digests) {
    EXPECT_EQ(digest, HexOf(expected_));
  }
  EXPECT_EQ(Entries().size(), 1u);
}

}  // namespace
}  // namespace kdn::model
