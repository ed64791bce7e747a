// Files in the directory of a disk tier that no disk tier made, and the modes
// of the files that it makes.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/storage/disk_fixture.h"

namespace kdn::storage {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kSegment = 1u << 20;

class StrangeFilesTest : public testing::Test {
 protected:
  void Open() {
    tier_ = nullptr;
    DiskTier::Options options;
    options.directory = directory();
    options.clock = TestClock();
    options.capacity_bytes = 16 * kSegment;
    options.segment_bytes = kSegment;
    auto opened = DiskTier::Open(options);
    ASSERT_TRUE(opened.ok()) << opened.status();
    tier_ = *std::move(opened);
  }
  // Writes an object and reads it again.
  void ExpectWorking(int i) {
    SyncDisk disk(tier_.get());
    const TestObject object = MakeObject(i);
    ASSERT_TRUE(disk.Write(object, /*sync=*/true).ok());
    const auto bytes = disk.Read(object.info);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    EXPECT_EQ(*bytes, object.bytes);
  }
  std::string directory() const { return parent_.path() + "/data"; }
  std::string In(const std::string& name) const {
    return directory() + "/" + name;
  }
  static std::string Contents(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }

  TempDirectory parent_;
  std::unique_ptr<DiskTier> tier_;
};

TEST_F(StrangeFilesTest, OnlyTheOwnerReadsWhatATierWrites) {
  Open();
  ExpectWorking(1);
  EXPECT_EQ(fs::status(directory()).permissions(), fs::perms::owner_all);
  for (const char* name : {"LOCK", "STORE", "segment-00000001"}) {
    ASSERT_TRUE(fs::exists(In(name))) << name;
    EXPECT_EQ(fs::status(In(name)).permissions(),
              fs::perms::owner_read | fs::perms::owner_write)
        << name;
  }
}

TEST_F(StrangeFilesTest, ALinkIsNotFollowed) {
  const std::string victim = parent_.path() + "/victim";
  std::ofstream(victim) << "text of somebody else";
  fs::create_directory(directory());
  fs::create_symlink(victim, In("segment-00000001"));
  fs::create_symlink(victim, In("STORE.new"));
  Open();
  ExpectWorking(1);
  EXPECT_EQ(Contents(victim), "text of somebody else");
  tier_ = nullptr;
  fs::remove(In("LOCK"));
  fs::create_symlink(victim, In("LOCK"));
  DiskTier::Options options;
  options.directory = directory();
  options.clock = TestClock();
  options.capacity_bytes = 16 * kSegment;
  options.segment_bytes = kSegment;
  EXPECT_FALSE(DiskTier::Open(options).ok());
}

TEST_F(StrangeFilesTest, FilesWithTheNameOfASegmentDoNotKeepItFromStarting) {
  fs::create_directory(directory());
  fs::create_directory(In("segment-00000001"));
  ASSERT_EQ(mkfifo(In("segment-00000002").c_str(), 0600), 0);
  std::ofstream(In("segment-3")) << "a file of somebody else";
  std::ofstream(In("segment-4294967295")) << "and another one";
  Open();
  ExpectWorking(1);
  Open();
  ExpectWorking(2);
  EXPECT_TRUE(fs::is_directory(In("segment-00000001")));
  EXPECT_TRUE(fs::is_fifo(In("segment-00000002")));
  EXPECT_EQ(Contents(In("segment-3")), "a file of somebody else");
  EXPECT_EQ(Contents(In("segment-4294967295")), "and another one");
}

}  // namespace
}  // namespace kdn::storage
