#ifndef KDN_KV_LINE_VECTOR_H_
#define KDN_KV_LINE_VECTOR_H_

#include <cstddef>
#include <new>
#include <vector>

namespace kdn {

inline constexpr size_t kCacheLine = 64;

// Allocates memory that begins at a cache line. Elements that are made without
// a value stay uninitialised, as with std::make_unique_for_overwrite.
template <typename T>
struct LineAllocator {
  using value_type = T;

  LineAllocator() = default;
  template <typename U>
  explicit LineAllocator(const LineAllocator<U>&) {}

  T* allocate(size_t count) {
    return static_cast<T*>(
        ::operator new(count * sizeof(T), std::align_val_t(kCacheLine)));
  }
  void deallocate(T* elements, size_t) {
    ::operator delete(elements, std::align_val_t(kCacheLine));
  }
  template <typename U>
  void construct(U* element) {
    ::new (static_cast<void*>(element)) U;
  }
  template <typename U, typename Value>
  void construct(U* element, const Value& value) {
    ::new (static_cast<void*>(element)) U(value);
  }
  friend bool operator==(const LineAllocator&, const LineAllocator&) {
    return true;
  }
};

// A vector that begins at a cache line, for data that vector units and AMX
// tiles read: 64 bytes at a multiple of 64 never cross a cache line. An AMX
// tile takes six times as long to load when its rows cross one.
template <typename T>
using LineVector = std::vector<T, LineAllocator<T>>;

}  // namespace kdn

#endif  // KDN_KV_LINE_VECTOR_H_
