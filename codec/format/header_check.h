#ifndef KDN_CODEC_FORMAT_HEADER_CHECK_H_
#define KDN_CODEC_FORMAT_HEADER_CHECK_H_

#include "absl/status/status.h"
#include "codec/format/object.h"

namespace kdn::codec {

// INVALID_ARGUMENT naming the dimension that is out of bounds. Sizes computed
// from a checked shape stay inside 63 bits.
absl::Status CheckShape(const KvShape& shape);

// INVALID_ARGUMENT naming what in the header contradicts itself or is out of
// bounds. A writer is told so; for a reader it means a damaged object.
absl::Status CheckHeader(const ObjectHeader& header);

// UNIMPLEMENTED naming the field that neither the encoder nor the decoders know
// how to follow, though the format carries it: layers whose K turns
// differently, a V of another head_dim, a critical section. REQUIRES:
// CheckHeader is OK.
absl::Status CheckSupported(const ObjectHeader& header);

}  // namespace kdn::codec

#endif  // KDN_CODEC_FORMAT_HEADER_CHECK_H_
