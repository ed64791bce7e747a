#include "tests/fuzz/allocated_bytes.h"

#include <atomic>
#include <cstdlib>
#include <new>

#include "absl/base/config.h"

namespace kdn::fuzz {
namespace {

std::atomic<size_t> allocated{0};

}  // namespace
}  // namespace kdn::fuzz

#if defined(ABSL_HAVE_ADDRESS_SANITIZER) || defined(ABSL_HAVE_THREAD_SANITIZER)

// Declared in sanitizer/allocator_interface.h.
extern "C" int __sanitizer_install_malloc_and_free_hooks(
    void (*on_malloc)(const volatile void*, size_t),
    void (*on_free)(const volatile void*));

namespace kdn::fuzz {

size_t AllocatedBytes() {
  [[maybe_unused]] static const int installed =
      __sanitizer_install_malloc_and_free_hooks(
          [](const volatile void*, size_t bytes) {
            allocated.fetch_add(bytes, std::memory_order_relaxed);
          },
          [](const volatile void*) {});
  return allocated;
}

}  // namespace kdn::fuzz

#else

// The other forms of new and delete call these.
void* operator new(size_t bytes) {
  kdn::fuzz::allocated.fetch_add(bytes, std::memory_order_relaxed);
  if (void* block = std::malloc(bytes); block != nullptr) return block;
  throw std::bad_alloc();
}
void* operator new(size_t bytes, std::align_val_t alignment) {
  const auto line = static_cast<size_t>(alignment);
  kdn::fuzz::allocated.fetch_add(bytes, std::memory_order_relaxed);
  // aligned_alloc needs a multiple of the alignment.
  void* block = std::aligned_alloc(line, (bytes + line - 1) / line * line);
  if (block != nullptr) return block;
  throw std::bad_alloc();
}
void operator delete(void* block) noexcept { std::free(block); }
void operator delete(void* block, size_t) noexcept { std::free(block); }
void operator delete(void* block, std::align_val_t) noexcept {
  std::free(block);
}
void operator delete(void* block, size_t, std::align_val_t) noexcept {
  std::free(block);
}

namespace kdn::fuzz {

size_t AllocatedBytes() { return allocated; }

}  // namespace kdn::fuzz

#endif
