// Tests how a node gets a calibration from another node.
#include <gtest/gtest.h>

#include <vector>

#include "absl/synchronization/notification.h"
#include "kv/digest.h"
#include "tests/rpc/bulk/fixture.h"

namespace kdn::rpc {
namespace {

class BulkCalibrationTest : public BulkFixture {
 protected:
  using Bytes = std::vector<std::byte>;
  static codec::CalibrationId IdOf(const Bytes& file) {
    return codec::CalibrationId(
        Sha256Of({reinterpret_cast<const uint8_t*>(file.data()), file.size()}));
  }
  absl::StatusOr<Bytes> Get(const codec::CalibrationId& id,
                            uint64_t bytes_max = 1u << 30) {
    absl::Notification done;
    absl::StatusOr<Bytes> got;
    transport_->FetchCalibration(NodeId("b"), id, bytes_max,
                                 SteadyNow() + absl::Seconds(20),
                                 [&](absl::StatusOr<Bytes> bytes) {
                                   got = std::move(bytes);
                                   done.Notify();
                                 });
    done.WaitForNotification();
    return got;
  }
};

TEST_F(BulkCalibrationTest, TheBytesComeWhole) {
  for (const size_t size : {size_t{1}, size_t{4u << 20}, size_t{9000001}}) {
    Bytes file(size);
    for (size_t i = 0; i < size; ++i) file[i] = static_cast<std::byte>(i * 13);
    peer_.HoldCalibration(file);
    const auto got = Get(IdOf(file));
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(*got, file);
  }
  EXPECT_EQ(server_->counters().connections, 1u) << "the connection is reused";
}

TEST_F(BulkCalibrationTest, AMissIsNotFoundAndTheConnectionGoesOn) {
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(absl::IsNotFound(Get(codec::CalibrationId()).status()));
  }
  EXPECT_EQ(server_->counters().connections, 1u);
}

TEST_F(BulkCalibrationTest, MoreBytesThanThereIsRoomForAreRefused) {
  const Bytes file(1000);
  peer_.HoldCalibration(file);
  const auto got = Get(IdOf(file), 999);
  EXPECT_TRUE(absl::IsResourceExhausted(got.status())) << got.status();
  EXPECT_TRUE(Get(IdOf(file), 1000).ok());
}

}  // namespace
}  // namespace kdn::rpc
