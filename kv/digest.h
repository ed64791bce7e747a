#ifndef KDN_KV_DIGEST_H_
#define KDN_KV_DIGEST_H_

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/types/span.h"

namespace kdn {

// A SHA-256 value. `Tag` makes digests of different things, such as a chunk's
// key and a model's fingerprint, different types.
template <typename Tag>
class Digest {
 public:
  static constexpr size_t kSize = 32;
  Digest() = default;
  explicit Digest(const std::array<uint8_t, kSize>& bytes) : bytes_(bytes) {}

  // Nullopt unless `bytes` has exactly 32 bytes.
  static std::optional<Digest> FromBytes(absl::Span<const uint8_t> bytes) {
    if (bytes.size() != kSize) return std::nullopt;
    Digest digest;
    std::memcpy(digest.bytes_.data(), bytes.data(), kSize);
    return digest;
  }

  const std::array<uint8_t, kSize>& bytes() const { return bytes_; }
  bool is_zero() const { return bytes_ == std::array<uint8_t, kSize>{}; }
  auto operator<=>(const Digest&) const = default;
  template <typename H>
  friend H AbslHashValue(H h, const Digest& d) {
    return H::combine_contiguous(std::move(h), d.bytes_.data(), kSize);
  }

 private:
  std::array<uint8_t, kSize> bytes_{};
};

// Two lower-case hex digits per byte.
std::string HexOf(absl::Span<const uint8_t> bytes);
template <typename Tag>
std::string Hex(const Digest<Tag>& digest) {
  return HexOf(digest.bytes());
}
// The first 12 hex digits, for log lines and error messages.
template <typename Tag>
std::string ShortHex(const Digest<Tag>& digest) {
  return Hex(digest).substr(0, 12);
}

std::array<uint8_t, 32> Sha256Of(absl::Span<const uint8_t> bytes);

// Hashes a list of fields. Fields are written little-endian, and the length of
// a field of variable length is written before it, so that no two different
// lists give the same bytes.
class DigestBuilder {
 public:
  // `domain` is the first field. It keeps digests of different purposes apart.
  explicit DigestBuilder(std::string_view domain);
  DigestBuilder& Add(uint64_t value);
  DigestBuilder& Add(double value);
  DigestBuilder& Add(std::string_view text);
  DigestBuilder& Add(absl::Span<const uint8_t> bytes);
  DigestBuilder& Add(absl::Span<const int32_t> values);
  std::array<uint8_t, 32> Finish() const;

 private:
  std::string preimage_;
};

}  // namespace kdn

#endif  // KDN_KV_DIGEST_H_
