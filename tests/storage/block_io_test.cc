#include "storage/block_io.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <random>
#include <string>
#include <vector>

namespace kdn::storage {
namespace {

// Each test runs with io_uring and with preadv and pwritev.
class BlockIoTest : public testing::TestWithParam<bool> {
 protected:
  BlockIoTest() {
    std::string path = testing::TempDir() + "/block-io-XXXXXX";
    fd_ = mkstemp(path.data());
    unlink(path.c_str());
    io_ = GetParam() ? MakeUringIo(4, 8192) : MakePosixIo(8192);
  }
  ~BlockIoTest() override { close(fd_); }

  int fd_ = -1;
  std::unique_ptr<BlockIo> io_;
};

TEST_P(BlockIoTest, ReadsBackWhatItWroteInAnyPieces) {
  if (io_ == nullptr) GTEST_SKIP() << "this kernel refuses io_uring";
  std::mt19937 random(5);
  std::vector<std::byte> data(100000);
  for (std::byte& b : data) b = static_cast<std::byte>(random());
  const absl::Span<const std::byte> all(data);
  const absl::Span<const std::byte> pieces[] = {
      all.first(1), all.subspan(1, 70000), all.subspan(70001)};
  ASSERT_TRUE(io_->Write(fd_, 333, pieces).ok());
  std::vector<std::byte> back(data.size());
  const absl::Span<std::byte> halves[] = {absl::MakeSpan(back).first(50001),
                                          absl::MakeSpan(back).subspan(50001)};
  ASSERT_TRUE(io_->Read(fd_, 333, halves).ok());
  EXPECT_EQ(back, data);
}

TEST_P(BlockIoTest, AFileThatEndsTooSoonIsDataLoss) {
  if (io_ == nullptr) GTEST_SKIP() << "this kernel refuses io_uring";
  std::vector<std::byte> data(20000);
  const absl::Span<const std::byte> pieces[] = {data};
  ASSERT_TRUE(io_->Write(fd_, 0, pieces).ok());
  std::vector<std::byte> back(20001);
  const absl::Span<std::byte> whole[] = {absl::MakeSpan(back)};
  EXPECT_TRUE(absl::IsDataLoss(io_->Read(fd_, 0, whole)));
}

TEST_P(BlockIoTest, AFullDeviceIsResourceExhausted) {
  if (io_ == nullptr) GTEST_SKIP() << "this kernel refuses io_uring";
  const int full = open("/dev/full", O_WRONLY);
  ASSERT_GE(full, 0);
  std::vector<std::byte> data(20000);
  const absl::Span<const std::byte> pieces[] = {data};
  EXPECT_TRUE(absl::IsResourceExhausted(io_->Write(full, 0, pieces)));
  close(full);
}

TEST_P(BlockIoTest, ABadDescriptorIsAnErrorNotACrash) {
  if (io_ == nullptr) GTEST_SKIP() << "this kernel refuses io_uring";
  std::vector<std::byte> data(20000);
  const absl::Span<const std::byte> pieces[] = {data};
  EXPECT_TRUE(absl::IsUnavailable(io_->Write(-1, 0, pieces)));
}

INSTANTIATE_TEST_SUITE_P(UringAndPosix, BlockIoTest, testing::Bool());

}  // namespace
}  // namespace kdn::storage
