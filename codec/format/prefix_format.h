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
// describes them. The first 64 bytes (fixed_fields.h) give the size of the
// rest.

// Bytes of the prefix of an object with this header. REQUIRES:
// CheckHeader(header) is OK.
uint64_t PrefixBytesFor(const ObjectHeader& header);

// The object's version: the XXH3-64 of the whole prefix.
ObjectVersion VersionOf(absl::Span<const std::byte> prefix);

// Fills `out` with a prefix of kFormatVersion. REQUIRES: CheckHeader(header) is
// OK, header.depth is set, there is one entry per stream, and out.size() ==
// PrefixBytesFor(header).
void WritePrefix(const ObjectHeader& header,
                 absl::Span<const StreamEntry> entries,
                 absl::Span<std::byte> out);

struct ParsedPrefix {
  ObjectHeader header;
  std::vector<StreamEntry> entries;
};
// The length of the prefix, read from its first kFixedPrefixBytes. Errors as
// ReadFixed.
absl::StatusOr<uint64_t> ReadPrefixBytes(
    absl::Span<const std::byte> fixed_prefix);
// Reads a whole prefix. DATA_LOSS unless an encoder of version 2 or 3 writes
// these bytes; UNIMPLEMENTED when a section is critical, or the version is
// another one. Allocates in proportion to the prefix. REQUIRES: prefix.size()
// is ReadPrefixBytes of the prefix.
absl::StatusOr<ParsedPrefix> ReadPrefix(absl::Span<const std::byte> prefix);

}  // namespace kdn::codec

#endif  // KDN_CODEC_FORMAT_PREFIX_FORMAT_H_
