#ifndef KDN_CODEC_FORMAT_PREFIX_FORMAT_H_
#define KDN_CODEC_FORMAT_PREFIX_FORMAT_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "codec/format/object.h"

namespace kdn::codec {

// The bytes of header, index and sections ("the prefix"), as docs/formats.md
// describes them: the first 64 are fixed (fixed_fields.h) and give the size of
// everything behind them.

// Where the prefix keeps its own length and CRC.
inline constexpr size_t kPrefixBytesOffset = 8;
inline constexpr size_t kCrcOffset = 12;

// Bytes of the prefix of such an object. REQUIRES: CheckHeader(header) is OK.
uint64_t PrefixBytesFor(const ObjectHeader& header);

// The CRC32C of a prefix: over all of it but the field that holds the CRC.
uint32_t PrefixCrc(absl::Span<const std::byte> prefix);
// What names the object's version: XXH3-64 over the whole prefix.
ObjectVersion VersionOf(absl::Span<const std::byte> prefix);

// Fills `out` in the newest version. REQUIRES: the header is checked and says
// its depth, there is one entry per stream and out.size() ==
// PrefixBytesFor(header).
void WritePrefix(const ObjectHeader& header,
                 absl::Span<const StreamEntry> entries,
                 absl::Span<std::byte> out);

struct ParsedPrefix {
  ObjectHeader header;
  std::vector<StreamEntry> entries;
};
// The total length that the first kFixedPrefixBytes state, once magic, format
// and geometry are plausible and agree with it. DATA_LOSS otherwise.
absl::StatusOr<uint64_t> ReadPrefixBytes(
    absl::Span<const std::byte> fixed_prefix);
// Reads a whole prefix. DATA_LOSS unless WritePrefix, or that of version 2,
// would give these bytes; UNIMPLEMENTED when a section is critical. Allocates
// in proportion to the prefix only. REQUIRES: prefix.size() is what
// ReadPrefixBytes says.
absl::StatusOr<ParsedPrefix> ReadPrefix(absl::Span<const std::byte> prefix);

}  // namespace kdn::codec

#endif  // KDN_CODEC_FORMAT_PREFIX_FORMAT_H_
