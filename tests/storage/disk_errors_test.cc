#include "storage/disk_errors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

namespace kdn::storage {
namespace {

using testing::HasSubstr;

TEST(DiskErrorTest, SaysWhatFailedWithWhichErrnoAndWhatToDo) {
  const absl::Status status = DiskError(EROFS, "opening /data/segment-1");
  EXPECT_TRUE(absl::IsUnavailable(status));
  const std::string message(status.message());
  EXPECT_THAT(message, HasSubstr("opening /data/segment-1: "));
  EXPECT_THAT(message, HasSubstr("(errno 30)"));
  EXPECT_THAT(message, HasSubstr("mounted read-only"));
}

TEST(DiskErrorTest, AFullDiskIsResourceExhaustedAndABrokenDiskIsNot) {
  for (const int error : {ENOSPC, EDQUOT, EFBIG}) {
    EXPECT_TRUE(absl::IsResourceExhausted(DiskError(error, "writing")));
  }
  for (const int error : {EIO, EACCES, EMFILE, ENXIO}) {
    EXPECT_TRUE(absl::IsUnavailable(DiskError(error, "writing")));
  }
}

TEST(DiskErrorTest, AnErrorWithoutAKnownRemedyEndsWithErrno) {
  const std::string message(DiskError(ENXIO, "reading").message());
  EXPECT_THAT(message, testing::EndsWith("(errno 6)"));
}

}  // namespace
}  // namespace kdn::storage
