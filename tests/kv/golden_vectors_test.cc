#include <gtest/gtest.h>

#include "kv/chunk_key.h"

namespace kdn {
namespace {

// These are promises to every client in every language: a change here is a new
// protocol version. Computed once by an independent implementation (Python's
// hashlib and struct) from the layout in docs/protocol.md.
TEST(GoldenVectorsTest, NeverChange) {
  const std::vector<GoldenVector> golden = GoldenVectors();
  ASSERT_EQ(golden.size(), 3u);
  EXPECT_EQ(golden[0].label, "model");
  EXPECT_EQ(Hex(golden[0].key),
            "2970093b296b59adc0678d790798a518bdbfe0499805865a81c221de5c6ff304");
  EXPECT_EQ(golden[1].label, "first-chunk");
  EXPECT_EQ(Hex(golden[1].key),
            "9dfc56cf158ddb500545fd0df70789866a650e1d2306a73b2c6957b704f0c159");
  EXPECT_EQ(golden[2].label, "chained-chunk");
  EXPECT_EQ(Hex(golden[2].key),
            "c765f74002545065601f0ca5addc2ce40863d8ffb816a10602b7c717f51d55b2");
}

}  // namespace
}  // namespace kdn
