#include "tests/fuzz/allocated_bytes.h"

#include <atomic>

// Of sanitizer/allocator_interface.h; null where there is no sanitizer.
extern "C" __attribute__((weak)) int __sanitizer_install_malloc_and_free_hooks(
    void (*on_malloc)(const volatile void*, size_t),
    void (*on_free)(const volatile void*));

namespace kdn::fuzz {
namespace {

std::atomic<size_t> allocated{0};

void OnMalloc(const volatile void*, size_t bytes) {
  allocated.fetch_add(bytes, std::memory_order_relaxed);
}
void OnFree(const volatile void*) {}

}  // namespace

size_t AllocatedBytes() {
  [[maybe_unused]] static const bool installed =
      __sanitizer_install_malloc_and_free_hooks != nullptr &&
      __sanitizer_install_malloc_and_free_hooks(OnMalloc, OnFree) != 0;
  return allocated;
}

}  // namespace kdn::fuzz
