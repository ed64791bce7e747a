#include "kv/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace kdn {
namespace {

using testing::ElementsAre;

class LogTest : public testing::Test {
 protected:
  LogTest() {
    SetLogSink(
        [this](LogSeverity, absl::string_view site, absl::string_view message) {
          lines_.push_back(std::string(site) + ": " + std::string(message));
        });
  }
  ~LogTest() override { SetLogSink(nullptr); }

  std::vector<std::string> lines_;
};

TEST_F(LogTest, WarningsAndErrorsOfASiteAreLimited) {
  for (int i = 0; i < 3; ++i) {
    LogInfo("log_test.limited", "information");
    LogWarning("log_test.limited", "warning");
    LogError("log_test.limited", "error");
  }
  EXPECT_THAT(
      lines_,
      ElementsAre("log_test.limited: information", "log_test.limited: warning",
                  "log_test.limited: error", "log_test.limited: information",
                  "log_test.limited: information"));
}

TEST_F(LogTest, WithoutASinkNothingIsWritten) {
  SetLogSink(nullptr);
  LogError("log_test.silent", "nobody reads this");
  EXPECT_TRUE(lines_.empty());
}

}  // namespace
}  // namespace kdn
