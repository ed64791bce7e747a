#ifndef KDN_KV_CRC32C_H_
#define KDN_KV_CRC32C_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"

namespace kdn {

// The CRC-32C of `bytes` (Castagnoli, RFC 3720 appendix B.4). Uses the SSE4.2
// instruction if the CPU has it.
uint32_t Crc32c(absl::Span<const std::byte> bytes);
// The CRC of two parts joined: `crc` is the CRC of the first part, `bytes` is
// the second part.
uint32_t ExtendCrc32c(uint32_t crc, absl::Span<const std::byte> bytes);
// ExtendCrc32c without the instruction, for tests to compare with.
uint32_t ExtendCrc32cPortable(uint32_t crc, absl::Span<const std::byte> bytes);

}  // namespace kdn

#endif  // KDN_KV_CRC32C_H_
