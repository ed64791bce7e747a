#include "bench/coder_process.h"

#include <gtest/gtest.h>

#include "kv/clock.h"

namespace kdn::bench {
namespace {

constexpr int kKeyBins[] = {32, 16};
constexpr int kValueBins[] = {16, 12};

absl::StatusOr<std::unique_ptr<CoderProcess>> StartFake(
    const std::string& mode, absl::Duration start = absl::Minutes(1),
    absl::Duration chunk = absl::Minutes(1)) {
  return CoderProcess::Start(
      {"python3", KDN_SOURCE_DIR "/tests/bench/fake_coder.py", mode},
      {.start = start, .chunk = chunk});
}

// More bytes than a socket holds.
KvTensor SomeKv() {
  KvTensor kv({2, 4, 300, 64, Dtype::kBf16});
  int next = 0;
  for (float& x : kv.values()) x = static_cast<float>(next++ % 256 - 128);
  return kv;
}

absl::Status ErrorOf(const std::string& mode,
                     absl::Duration chunk = absl::Minutes(1)) {
  auto coder = StartFake(mode, absl::Minutes(1), chunk);
  if (!coder.ok()) return coder.status();
  return (*coder)->Code(SomeKv(), kKeyBins, kValueBins).status();
}

TEST(CoderProcess, CodesOneChunkAfterAnother) {
  auto coder = StartFake("right");
  ASSERT_TRUE(coder.ok()) << coder.status();
  const KvTensor kv = SomeKv();
  for (const int tokens : {300, 1, 17}) {
    const KvTensor chunk = kv.Tokens(0, tokens);
    const auto coded = (*coder)->Code(chunk, kKeyBins, kValueBins);
    ASSERT_TRUE(coded.ok()) << coded.status();
    EXPECT_EQ(coded->bytes, chunk.shape().bytes() / 2);
    EXPECT_EQ(coded->kv.shape(), chunk.shape());
    EXPECT_EQ(coded->kv.values(), chunk.values());
  }
}

TEST(CoderProcess, RefusesMalformedAnswers) {
  for (const char* mode :
       {"other bytes", "no size", "negative size", "no JSON", "no line"}) {
    EXPECT_EQ(ErrorOf(mode).code(), absl::StatusCode::kDataLoss) << mode;
  }
}

TEST(CoderProcess, ReportsAProcessThatEnds) {
  EXPECT_EQ(ErrorOf("exit"),
            absl::UnavailableError("the coder process ended with exit code 7"));
  EXPECT_EQ(ErrorOf("short"),
            absl::UnavailableError("the coder process ended with exit code 0"));
}

TEST(CoderProcess, ReportsTheErrorsOfTheProcess) {
  EXPECT_EQ(ErrorOf("error"),
            absl::FailedPreconditionError("these bins cannot be coded"));
  EXPECT_EQ(StartFake("cannot start").status(),
            absl::FailedPreconditionError("the network cannot be reached"));
}

TEST(CoderProcess, ReportsACommandThatCannotBeStarted) {
  EXPECT_EQ(CoderProcess::Start({"/no/such/program"}, {}).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(CoderProcess, DoesNotWaitForASilentProcess) {
  const absl::Time begin = SteadyNow();
  for (const char* mode : {"silent", "half", "deaf"}) {
    EXPECT_EQ(ErrorOf(mode, absl::Milliseconds(300)).code(),
              absl::StatusCode::kDeadlineExceeded)
        << mode;
  }
  EXPECT_EQ(StartFake("never ready", absl::Milliseconds(300)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_LT(SteadyNow() - begin, absl::Minutes(2));
}

}  // namespace
}  // namespace kdn::bench
