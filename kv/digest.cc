#include "kv/digest.h"

#include <openssl/sha.h>

#include <bit>

namespace kdn {
namespace {

void AppendU64(uint64_t value, std::string& out) {
  for (int shift = 0; shift < 64; shift += 8) {
    out.push_back(static_cast<char>((value >> shift) & 0xff));
  }
}

}  // namespace

std::string HexOf(absl::Span<const uint8_t> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(2 * bytes.size());
  for (uint8_t byte : bytes) {
    hex.push_back(kDigits[byte >> 4]);
    hex.push_back(kDigits[byte & 15]);
  }
  return hex;
}

std::array<uint8_t, 32> Sha256Of(absl::Span<const uint8_t> bytes) {
  std::array<uint8_t, 32> digest;
  SHA256(bytes.data(), bytes.size(), digest.data());
  return digest;
}

DigestBuilder::DigestBuilder(std::string_view domain) { Add(domain); }

DigestBuilder& DigestBuilder::Add(uint64_t value) {
  AppendU64(value, preimage_);
  return *this;
}

DigestBuilder& DigestBuilder::Add(double value) {
  return Add(std::bit_cast<uint64_t>(value));
}

DigestBuilder& DigestBuilder::Add(std::string_view text) {
  AppendU64(text.size(), preimage_);
  preimage_.append(text);
  return *this;
}

DigestBuilder& DigestBuilder::Add(absl::Span<const uint8_t> bytes) {
  return Add(std::string_view(reinterpret_cast<const char*>(bytes.data()),
                              bytes.size()));
}

DigestBuilder& DigestBuilder::Add(absl::Span<const int32_t> values) {
  AppendU64(values.size(), preimage_);
  for (int32_t value : values) {
    const uint32_t bits = static_cast<uint32_t>(value);
    for (int shift = 0; shift < 32; shift += 8) {
      preimage_.push_back(static_cast<char>((bits >> shift) & 0xff));
    }
  }
  return *this;
}

std::array<uint8_t, 32> DigestBuilder::Finish() const {
  return Sha256Of(absl::MakeConstSpan(
      reinterpret_cast<const uint8_t*>(preimage_.data()), preimage_.size()));
}

}  // namespace kdn
