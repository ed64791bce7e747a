#include "storage/store_marker.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/storage/disk_fixture.h"

namespace kdn::storage {
namespace {

TEST(StoreMarkerTest, IsNotThereUntilItIsWrittenAndThenReplaced) {
  TempDirectory directory;
  absl::StatusOr<std::optional<StoreMarker>> marker =
      ReadStoreMarker(directory.path());
  ASSERT_TRUE(marker.ok()) << marker.status();
  EXPECT_FALSE(marker->has_value());
  for (uint64_t epoch = 1; epoch <= 3; ++epoch) {
    const StoreMarker written{~uint64_t{0} - epoch, epoch};
    ASSERT_TRUE(WriteStoreMarker(directory.path(), written).ok());
    marker = ReadStoreMarker(directory.path());
    ASSERT_TRUE(marker.ok()) << marker.status();
    EXPECT_EQ(*marker, written);
  }
}

TEST(StoreMarkerTest, AHalfWrittenReplacementIsNotSeen) {
  TempDirectory directory;
  ASSERT_TRUE(WriteStoreMarker(directory.path(), {7, 1}).ok());
  std::ofstream(directory.path() + "/STORE.new") << "kdn-st";
  const auto marker = ReadStoreMarker(directory.path());
  ASSERT_TRUE(marker.ok()) << marker.status();
  EXPECT_EQ((*marker)->store_id, 7u);
}

TEST(StoreMarkerTest, AnotherFormatIsRefusedByName) {
  TempDirectory directory;
  for (const char* text : {"", "kdn-store-3 1 1\n", "kdn-store-1 one two\n"}) {
    std::ofstream(directory.path() + "/STORE") << text;
    const absl::Status status = ReadStoreMarker(directory.path()).status();
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    EXPECT_NE(status.message().find(directory.path()), std::string::npos);
  }
}

TEST(StoreMarkerTest, AMarkerThatCannotBeReadIsAnErrorNotAMissingOne) {
  TempDirectory directory;
  const std::string path = directory.path() + "/STORE";
  std::filesystem::create_symlink(path, path);  // opening fails, also for root
  EXPECT_TRUE(absl::IsUnavailable(ReadStoreMarker(directory.path()).status()));
  std::filesystem::remove(path);
  std::filesystem::create_directory(path);  // reading fails
  EXPECT_TRUE(absl::IsUnavailable(ReadStoreMarker(directory.path()).status()));
}

TEST(StoreMarkerTest, ADirectoryThatCannotBeWrittenIsAnError) {
  TempDirectory directory;
  const std::string missing = directory.path() + "/none";
  EXPECT_TRUE(absl::IsUnavailable(WriteStoreMarker(missing, {1, 1})));
  EXPECT_TRUE(absl::IsUnavailable(SyncDirectory(missing)));
}

}  // namespace
}  // namespace kdn::storage
