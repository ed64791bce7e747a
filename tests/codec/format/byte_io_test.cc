#include "codec/format/byte_io.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <vector>

namespace kdn::codec {
namespace {

TEST(ByteIo, FieldsRoundTripInLittleEndian) {
  std::array<std::byte, 32> memory;
  ByteWriter out(absl::MakeSpan(memory));
  out.Write<uint16_t>(0x0102);
  out.Write<int32_t>(-5);
  out.Write<double>(0.1);
  out.Bytes("text", 4);
  EXPECT_EQ(out.written(), 18u);
  out.ZeroRest();
  EXPECT_EQ(out.written(), memory.size());
  EXPECT_EQ(memory[0], std::byte{0x02});
  EXPECT_EQ(memory[1], std::byte{0x01});
  EXPECT_EQ(memory[31], std::byte{0});

  ByteReader in(memory);
  EXPECT_EQ(in.Read<uint16_t>(), 0x0102);
  EXPECT_EQ(in.Read<int32_t>(), -5);
  EXPECT_EQ(in.Read<double>(), 0.1);
  EXPECT_EQ(in.Text(4), "text");
  EXPECT_EQ(in.remaining(), 14u);
  EXPECT_TRUE(in.ok());
}

TEST(ByteIo, ReadingPastTheEndIsStickyAndYieldsZeros) {
  const std::array<std::byte, 6> memory = {std::byte{1}, std::byte{2}};
  ByteReader in(memory);
  in.Read<uint32_t>();
  EXPECT_EQ(in.Read<uint32_t>(), 0u);
  EXPECT_FALSE(in.ok());
  EXPECT_EQ(in.Read<uint8_t>(), 0u);
  EXPECT_TRUE(in.Bytes(1).empty());
  EXPECT_TRUE(in.Text(1).empty());
  EXPECT_FALSE(in.ok());
  EXPECT_EQ(in.remaining(), 0u);
}

TEST(ByteIo, AnAbsurdLengthDoesNotWrapAround) {
  const std::array<std::byte, 8> memory = {};
  ByteReader in(memory);
  in.Read<uint32_t>();
  EXPECT_TRUE(in.Bytes(std::numeric_limits<size_t>::max()).empty());
  EXPECT_FALSE(in.ok());
}

TEST(ByteIo, NothingIsReadFromNothing) {
  ByteReader in({});
  EXPECT_TRUE(in.Bytes(0).empty());
  EXPECT_TRUE(in.ok());
  EXPECT_EQ(in.Read<uint64_t>(), 0u);
  EXPECT_FALSE(in.ok());
}

TEST(ByteIoDeathTest, OverrunningTheBufferIsABug) {
  std::array<std::byte, 3> memory;
  ByteWriter out(absl::MakeSpan(memory));
  EXPECT_DEATH(out.Write<uint32_t>(1), "past the end");
}

}  // namespace
}  // namespace kdn::codec
