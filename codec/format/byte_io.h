#ifndef KDN_CODEC_FORMAT_BYTE_IO_H_
#define KDN_CODEC_FORMAT_BYTE_IO_H_

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "absl/types/span.h"
#include "kv/check.h"

namespace kdn::codec {

// Streams hold the engine's own elements, and objects are little-endian, so the
// machine must be little-endian.
static_assert(std::endian::native == std::endian::little);

inline bool AllZero(absl::Span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(),
                     [](std::byte byte) { return byte == std::byte{0}; });
}

// Reads little-endian fields from untrusted bytes. A read past the end yields
// zeros, and ok() is false from then on, so that a caller checks once, after
// the last field. Does not own the bytes. Thread-compatible.
class ByteReader {
 public:
  explicit ByteReader(absl::Span<const std::byte> bytes) : bytes_(bytes) {}

  template <typename T>
  T Read() {
    static_assert(std::is_arithmetic_v<T>);
    T value{};
    const absl::Span<const std::byte> field = Bytes(sizeof(T));
    if (!field.empty()) std::memcpy(&value, field.data(), sizeof(T));
    return value;
  }
  // The next `count` bytes; empty when there are fewer.
  absl::Span<const std::byte> Bytes(size_t count) {
    if (count > remaining()) {
      ok_ = false;
      at_ = bytes_.size();
      return {};
    }
    at_ += count;
    return bytes_.subspan(at_ - count, count);
  }
  std::string_view Text(size_t count) {
    const absl::Span<const std::byte> text = Bytes(count);
    return {reinterpret_cast<const char*>(text.data()), text.size()};
  }

  bool ok() const { return ok_; }
  size_t remaining() const { return bytes_.size() - at_; }

 private:
  absl::Span<const std::byte> bytes_;
  size_t at_ = 0;
  bool ok_ = true;
};

// Writes little-endian fields into memory of the caller. CHECK-fails when the
// memory is too small. Does not own the memory. Thread-compatible.
class ByteWriter {
 public:
  explicit ByteWriter(absl::Span<std::byte> out) : out_(out) {}

  template <typename T>
  void Write(T value) {
    static_assert(std::is_arithmetic_v<T>);
    Bytes(&value, sizeof(T));
  }
  void Bytes(const void* data, size_t count) {
    KDN_CHECK(count <= out_.size() - at_, "field past the end of the buffer");
    if (count > 0) std::memcpy(out_.data() + at_, data, count);
    at_ += count;
  }
  // Fills the rest of the memory with zeros.
  void ZeroRest() {
    if (at_ < out_.size()) std::memset(out_.data() + at_, 0, out_.size() - at_);
    at_ = out_.size();
  }

  size_t written() const { return at_; }

 private:
  absl::Span<std::byte> out_;
  size_t at_ = 0;
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_FORMAT_BYTE_IO_H_
