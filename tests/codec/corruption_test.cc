// Objects come from disks and peers: whatever their bytes are, the answer is
// DATA_LOSS, never a crash, a read outside the object or a large allocation.

#include <gtest/gtest.h>

#include <cstring>

#include "codec/byte_io.h"
#include "codec/object.h"
#include "codec/prefix_format.h"
#include "tests/codec/test_chunk.h"

namespace kdn::codec {
namespace {

ChunkOptions Tiny() {
  ChunkOptions options;
  options.shape = {.layers = 2,
                   .kv_heads = 1,
                   .tokens = 3,
                   .head_dim = 4,
                   .dtype = Dtype::kBf16};
  options.rotary_dim = 4;
  return options;
}

absl::Status ParseAndVerify(const std::vector<std::byte>& object) {
  const auto index = ObjectIndex::Parse(object, object.size());
  if (!index.ok()) return index.status();
  return VerifyObject(*index, object);
}

TEST(Corruption, EveryFlippedBitIsFound) {
  std::vector<std::byte> object = RandomObject(Tiny(), 1);
  ASSERT_TRUE(ParseAndVerify(object).ok());
  for (size_t at = 0; at < object.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      object[at] ^= std::byte{1} << bit;
      EXPECT_EQ(ParseAndVerify(object).code(), absl::StatusCode::kDataLoss)
          << "byte " << at << " bit " << bit;
      object[at] ^= std::byte{1} << bit;
    }
  }
}

TEST(Corruption, EveryFlippedBitOfAStreamIsFoundWhileDecoding) {
  std::vector<std::byte> object = RandomObject(Tiny(), 1);
  const auto index = ObjectIndex::Parse(object, object.size());
  ASSERT_TRUE(index.ok());
  const ObjectHeader& header = index->header();
  const auto decoder = ObjectDecoder::Create(&*index, header.positions);
  ASSERT_TRUE(decoder.ok());
  KvBuffer decoded(header.shape, Layout::kTokenMajor);
  for (Level level : {Level::kLossless, Level::kInt8}) {
    for (int layer = 0; layer < header.shape.layers; ++layer) {
      const ByteRange range = index->LayerRanges(level, layer, 0, 1).front();
      for (uint64_t bit = 0; bit < 8 * range.bytes; ++bit) {
        std::byte& at = object[range.offset + bit / 8];
        at ^= std::byte{1} << (bit % 8);
        EXPECT_EQ(decoder
                      ->DecodeLayerOf(object, level, layer, 0, 1,
                                      decoded.view().Layer(layer))
                      .code(),
                  absl::StatusCode::kDataLoss);
        at ^= std::byte{1} << (bit % 8);
      }
    }
  }
}

TEST(Corruption, EveryTruncationIsFound) {
  const std::vector<std::byte> object = RandomObject(Tiny(), 1);
  for (size_t bytes = 0; bytes < object.size(); ++bytes) {
    // A copy of exactly that size, so that a sanitizer sees any over-read.
    const std::vector<std::byte> part(object.begin(), object.begin() + bytes);
    EXPECT_EQ(ParseAndVerify(part).code(), absl::StatusCode::kDataLoss);
    // Likewise when only the prefix handed over is short.
    const auto index = ObjectIndex::Parse(part, object.size());
    if (index.ok()) {
      EXPECT_GE(bytes, index->prefix_bytes());
      EXPECT_EQ(VerifyObject(*index, part).code(), absl::StatusCode::kDataLoss);
    } else {
      EXPECT_EQ(index.status().code(), absl::StatusCode::kDataLoss);
    }
  }
}

TEST(Corruption, BytesAfterTheObjectAreFound) {
  std::vector<std::byte> object = RandomObject(Tiny(), 1);
  object.push_back(std::byte{0});
  EXPECT_EQ(ParseAndVerify(object).code(), absl::StatusCode::kDataLoss);
}

TEST(Corruption, RandomBytesAreNoObject) {
  std::mt19937 rng(31);
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::byte> bytes(rng() % 1024);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng());
    if (round % 2 == 0 && bytes.size() >= 8) {
      std::memcpy(bytes.data(), "KDNOBJ\1\0", 8);
    }
    EXPECT_EQ(ParseAndVerify(bytes).code(), absl::StatusCode::kDataLoss);
  }
}

// One field of the fixed prefix, overwritten; the checksum is made right.
struct Forgery {
  size_t offset;
  size_t bytes;
  uint64_t value;
};

class ForgeryTest : public testing::TestWithParam<Forgery> {};

TEST_P(ForgeryTest, IsDataLossThoughTheChecksumIsRight) {
  const Forgery& forgery = GetParam();
  std::vector<std::byte> object = RandomObject(Tiny(), 1);
  const auto original = ObjectIndex::Parse(object, object.size());
  ASSERT_TRUE(original.ok());
  std::memcpy(object.data() + forgery.offset, &forgery.value, forgery.bytes);
  const uint32_t crc =
      PrefixCrc(absl::MakeSpan(object).subspan(0, original->prefix_bytes()));
  ByteWriter(absl::MakeSpan(object).subspan(kCrcOffset)).Write<uint32_t>(crc);
  EXPECT_EQ(ParseAndVerify(object).code(), absl::StatusCode::kDataLoss);
  // Claiming a matching object size does not help.
  EXPECT_EQ(ObjectIndex::Parse(object, ~uint64_t{0}).status().code(),
            absl::StatusCode::kDataLoss);
}

// Offsets as in docs/formats.md.
INSTANTIATE_TEST_SUITE_P(
    FixedFields, ForgeryTest,
    testing::Values(Forgery{6, 2, 2},            // a later format
                    Forgery{8, 4, 0},            // no prefix
                    Forgery{8, 4, 63},           // shorter than itself
                    Forgery{8, 4, 0xffffffff},   // longer than anything
                    Forgery{16, 4, 0},           // layers
                    Forgery{16, 4, 0x7fffffff},  //
                    Forgery{16, 4, 0xffffffff},  //
                    Forgery{16, 4, 1024},        // in bounds, but not there
                    Forgery{20, 4, 1024},        // heads
                    Forgery{20, 4, 0x80000000},  //
                    Forgery{24, 4, 0},           // tokens
                    Forgery{24, 4, 4096},        //
                    Forgery{24, 4, 4097},        //
                    Forgery{28, 4, 8},           // head_dim
                    Forgery{28, 4, 4097},        //
                    Forgery{32, 1, 2},           // dtype of another size
                    Forgery{32, 1, 200},         //
                    Forgery{33, 1, 0},           // levels
                    Forgery{33, 1, 1},           //
                    Forgery{33, 1, 0xff},        //
                    Forgery{34, 1, 2},           // pairing
                    Forgery{35, 1, 9},           // scaling
                    Forgery{36, 4, 6},           // rotary_dim past the head
                    Forgery{36, 4, 0xfffffffe},  //
                    Forgery{44, 2, 0},           // namespace length
                    Forgery{44, 2, 0xffff},      //
                    Forgery{46, 2, 0xffff},      // variant length
                    Forgery{48, 8, 1},           // reserved
                    Forgery{56, 8, 1}));

TEST(Corruption, TamperedIndexEntriesAreFoundThoughTheChecksumIsRight) {
  const std::vector<std::byte> object = RandomObject(Tiny(), 1);
  const auto index = ObjectIndex::Parse(object, object.size());
  ASSERT_TRUE(index.ok());
  const size_t entries = 2 * 2 * 2;
  const size_t index_end =
      64 + 3 * 32 + 7 * 8 + 6 + 3 + 2 * 3 * 4 + 16 * entries;
  ASSERT_LE(index_end, index->prefix_bytes());
  for (size_t entry = 0; entry < entries; ++entry) {
    for (size_t byte = 0; byte < 12; ++byte) {  // offset and length
      std::vector<std::byte> forged = object;
      forged[index_end - 16 * (entries - entry) + byte] ^= std::byte{0x40};
      RepairPrefixCrc(absl::MakeSpan(forged));
      EXPECT_EQ(ParseAndVerify(forged).code(), absl::StatusCode::kDataLoss)
          << "entry " << entry << " byte " << byte;
    }
  }
}

}  // namespace
}  // namespace kdn::codec
