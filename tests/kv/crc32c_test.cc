#include "kv/crc32c.h"

#include <gtest/gtest.h>

#include <random>
#include <string_view>
#include <vector>

namespace kdn {
namespace {

absl::Span<const std::byte> BytesOf(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// RFC 3720 appendix B.4.
TEST(Crc32cTest, AgreesWithTheStandard) {
  EXPECT_EQ(Crc32c(BytesOf("123456789")), 0xe3069283u);
  const std::vector<std::byte> zeros(32);
  EXPECT_EQ(Crc32c(zeros), 0x8a9136aau);
  const std::vector<std::byte> ones(32, std::byte{0xff});
  EXPECT_EQ(Crc32c(ones), 0x62a8ab43u);
}

TEST(Crc32cTest, FastAndPortableFormsAgreeAtEveryLengthAndOffset) {
  std::mt19937 random(1);
  std::vector<std::byte> bytes(20000);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  const absl::Span<const std::byte> all(bytes);
  for (size_t length :
       {0u, 1u, 7u, 8u, 9u, 3071u, 3072u, 3073u, 6144u, 19990u}) {
    for (size_t offset = 0; offset < 9; ++offset) {
      const auto part = all.subspan(offset, length);
      EXPECT_EQ(ExtendCrc32c(17, part), ExtendCrc32cPortable(17, part))
          << "length " << length << " offset " << offset;
    }
  }
}

TEST(Crc32cTest, ExtendsOverAConcatenation) {
  EXPECT_EQ(ExtendCrc32c(Crc32c(BytesOf("1234")), BytesOf("56789")),
            Crc32c(BytesOf("123456789")));
}

}  // namespace
}  // namespace kdn
