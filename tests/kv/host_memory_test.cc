#include "kv/host_memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <utility>

namespace kdn {
namespace {

TEST(SharedMemoryTest, TwoMappingsSeeTheSameBytes) {
  absl::StatusOr<SharedMemory> ours = SharedMemory::Create("test", 8192);
  ASSERT_TRUE(ours.ok()) << ours.status();
  absl::StatusOr<SharedMemory> theirs =
      SharedMemory::Map(dup(ours->fd()), 8192);
  ASSERT_TRUE(theirs.ok()) << theirs.status();
  EXPECT_EQ(ours->data()[5000], std::byte{0});
  ours->data()[5000] = std::byte{42};
  EXPECT_EQ(theirs->data()[5000], std::byte{42});
}

TEST(SharedMemoryTest, RefusesADescriptorThatCouldFaultUs) {
  absl::StatusOr<SharedMemory> small = SharedMemory::Create("small", 4096);
  ASSERT_TRUE(small.ok());
  EXPECT_TRUE(absl::IsInvalidArgument(
      SharedMemory::Map(dup(small->fd()), 8192).status()));
  const int unsealed = memfd_create("unsealed", MFD_CLOEXEC);
  ASSERT_EQ(ftruncate(unsealed, 8192), 0);
  EXPECT_TRUE(
      absl::IsInvalidArgument(SharedMemory::Map(unsealed, 8192).status()));
}

TEST(SharedMemoryTest, MovesItsOwnership) {
  absl::StatusOr<SharedMemory> memory = SharedMemory::Create("test", 4096);
  ASSERT_TRUE(memory.ok());
  SharedMemory moved = *std::move(memory);
  EXPECT_EQ(moved.size(), 4096u);
  SharedMemory other;
  other = std::move(moved);
  other.data()[0] = std::byte{1};
  EXPECT_EQ(other.data()[0], std::byte{1});
}

TEST(PrivateMemoryTest, IsZeroUntilWrittenAndMovesItsOwnership) {
  absl::StatusOr<PrivateMemory> memory = PrivateMemory::Create(1u << 22);
  ASSERT_TRUE(memory.ok()) << memory.status();
  EXPECT_EQ(memory->bytes()[12345], std::byte{0});
  memory->bytes()[12345] = std::byte{7};
  PrivateMemory other = *std::move(memory);
  EXPECT_EQ(other.size(), 1u << 22);
  EXPECT_EQ(other.data()[12345], std::byte{7});
}

TEST(PrivateMemoryTest, RefusesMoreThanTheAddressSpace) {
  EXPECT_TRUE(absl::IsResourceExhausted(
      PrivateMemory::Create(size_t{1} << 62).status()));
}

}  // namespace
}  // namespace kdn
