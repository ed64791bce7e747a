#include "model/tokenizer/byte_level.h"

#include <gtest/gtest.h>

#include "model/tokenizer/unicode.h"

namespace kdn::model {
namespace {

TEST(ByteLevelTest, StandInsAreReversibleForEveryByte) {
  for (int i = 0; i < 256; ++i) {
    const std::string text = ToStandIns(std::string(1, static_cast<char>(i)));
    size_t at = 0;
    EXPECT_EQ(ByteOfStandIn(NextCodePoint(text, at)), i);
    EXPECT_EQ(at, text.size()) << "one character";
  }
  EXPECT_EQ(ToStandIns(" a"), "\u0120a") << "GPT-2's space";
  EXPECT_EQ(ByteOfStandIn(U'\u4e00'), std::nullopt);
}

}  // namespace
}  // namespace kdn::model
