// Tests the calls about calibrations.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kv/digest.h"
#include "tests/rpc/gateway/fixture.h"
#include "tests/rpc/gateway/raw_client.h"

namespace kdn::rpc {
namespace {

using ::testing::HasSubstr;

class CalibrationTest : public GatewayFixture {
 protected:
  static std::vector<std::byte> FileOf(size_t bytes) {
    std::vector<std::byte> file(bytes);
    for (size_t i = 0; i < bytes; ++i) file[i] = static_cast<std::byte>(i * 7);
    return file;
  }
  static CalibrationId IdOf(const std::vector<std::byte>& file) {
    return CalibrationId(
        Sha256Of({reinterpret_cast<const uint8_t*>(file.data()), file.size()}));
  }
  // Begins an upload of `bytes` bytes.
  static wire::CalibrationUpload::Client Begin(RawClient& raw, uint64_t bytes) {
    auto request = raw.Session().storeCalibrationRequest();
    request.setBytes(bytes);
    return raw.Send(kj::mv(request))->getUpload();
  }
  static absl::Status Part(RawClient& raw,
                           wire::CalibrationUpload::Client& upload,
                           size_t bytes) {
    auto request = upload.partRequest();
    request.initBytes(static_cast<unsigned>(bytes));
    return raw.StatusOf(kj::mv(request));
  }
};

TEST_F(CalibrationTest, AFileOfManyPartsIsStoredAndListed) {
  for (const std::string& address : {tcp_address(), unix_address()}) {
    client_ = MakeClient(address);
    ASSERT_TRUE(client_->KeepsCalibrations());
    const std::vector<std::byte> file = FileOf((9u << 20) + 5);
    const auto receipt = client_->StoreCalibration(file);
    ASSERT_TRUE(receipt.ok()) << receipt.status();
    EXPECT_EQ(receipt->id, IdOf(file));
    EXPECT_EQ(receipt->holders.size(), 2u);
    const auto all = client_->Calibrations();
    ASSERT_TRUE(all.ok()) << all.status();
    ASSERT_FALSE(all->empty());
    EXPECT_EQ(all->back().id, receipt->id);
    EXPECT_EQ(all->back().bytes, file.size());
    EXPECT_EQ(all->back().created, absl::FromUnixSeconds(1234));
    EXPECT_EQ(all->back().holders, receipt->holders);
  }
}

TEST_F(CalibrationTest, OnlyThoseOfTheAskedModelAreListed) {
  client_ = MakeClient(tcp_address());
  ASSERT_TRUE(client_->StoreCalibration(FileOf(9)).ok());
  RawClient raw(tcp_address());
  for (const bool has : {true, false}) {
    auto request = raw.Session().calibrationsRequest();
    request.setModel(ToWire(has ? ModelFingerprint() : FingerprintOf(model_)));
    EXPECT_EQ(raw.Send(kj::mv(request))->getCalibrations().size(),
              has ? 1u : 0u);
  }
  auto request = raw.Session().calibrationsRequest();
  request.initModel(31);
  EXPECT_TRUE(absl::IsInvalidArgument(raw.StatusOf(kj::mv(request))));
}

TEST_F(CalibrationTest, ASizeThatTheGatewayHasNoRoomForIsRefused) {
  Gateway::Options options;
  options.calibration_bytes_max = 100;
  StartGateway(options);
  RawClient raw(tcp_address());
  for (const uint64_t bytes : {uint64_t{0}, uint64_t{101}, UINT64_MAX}) {
    auto request = raw.Session().storeCalibrationRequest();
    request.setBytes(bytes);
    const absl::Status status = raw.StatusOf(kj::mv(request));
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("1 to 100"));
  }
  auto upload = Begin(raw, 60);
  auto second = raw.Session().storeCalibrationRequest();
  second.setBytes(1);
  EXPECT_TRUE(absl::IsResourceExhausted(raw.StatusOf(kj::mv(second))))
      << "one upload of a session at a time";
  RawClient other(tcp_address());
  auto third = other.Session().storeCalibrationRequest();
  third.setBytes(60);
  EXPECT_TRUE(absl::IsResourceExhausted(other.StatusOf(kj::mv(third))));
}

TEST_F(CalibrationTest, AnUploadThatIsDroppedGivesItsRoomBack) {
  Gateway::Options options;
  options.calibration_bytes_max = 100;
  StartGateway(options);
  RawClient raw(tcp_address());
  for (int i = 0; i < 3; ++i) {
    auto upload = Begin(raw, 100);
    EXPECT_TRUE(Part(raw, upload, 50).ok());
  }
}

TEST_F(CalibrationTest, TooManyAndTooFewBytesAreNamed) {
  RawClient raw(tcp_address());
  {
    auto upload = Begin(raw, 10);
    EXPECT_TRUE(Part(raw, upload, 6).ok());
    const absl::Status more = Part(raw, upload, 5);
    EXPECT_TRUE(absl::IsInvalidArgument(more)) << more;
    const absl::Status few = raw.StatusOf(upload.commitRequest());
    EXPECT_TRUE(absl::IsInvalidArgument(few)) << few;
    EXPECT_THAT(std::string(few.message()), HasSubstr("6 of 10"));
    EXPECT_TRUE(
        absl::IsFailedPrecondition(raw.StatusOf(upload.commitRequest())));
  }
  auto upload = Begin(raw, 20u << 20);
  EXPECT_TRUE(absl::IsInvalidArgument(Part(raw, upload, (8u << 20) + 1)));
}

TEST_F(CalibrationTest, ASilentNodeEndsTheStoreAtItsDeadline) {
  node_.BeSilent();
  client_ = MakeClient(tcp_address());
  const auto receipt =
      client_->StoreCalibration(FileOf(9), absl::Milliseconds(50));
  EXPECT_TRUE(absl::IsDeadlineExceeded(receipt.status())) << receipt.status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      client_->Calibrations(absl::Milliseconds(50)).status()));
  node_.Speak();
}

}  // namespace
}  // namespace kdn::rpc
