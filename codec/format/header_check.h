#ifndef KDN_CODEC_FORMAT_HEADER_CHECK_H_
#define KDN_CODEC_FORMAT_HEADER_CHECK_H_

#include "absl/status/status.h"
#include "codec/format/object.h"
#include "codec/format/stream_layout.h"

namespace kdn::codec {

// INVALID_ARGUMENT naming the dimension that is out of bounds. Byte sizes that
// are computed from a checked shape fit into 63 bits.
absl::Status CheckShape(const KvShape& shape);
// INVALID_ARGUMENT unless the heads that share streams divide the heads, fit a
// stream, and have a level to share. REQUIRES: CheckShape is OK.
absl::Status CheckJoint(const StreamGrid& grid, LevelSet levels);

// INVALID_ARGUMENT naming the field that is out of bounds or contradicts
// another field. A writer returns this status; a reader returns DATA_LOSS.
absl::Status CheckHeader(const ObjectHeader& header);

// UNIMPLEMENTED when the format can hold the object but the encoder and the
// decoders cannot code it; names the field. That is: another RoPE in some
// layers, another head_dim of V than of K, a critical section.
// REQUIRES: CheckHeader is OK.
absl::Status CheckSupported(const ObjectHeader& header);

}  // namespace kdn::codec

#endif  // KDN_CODEC_FORMAT_HEADER_CHECK_H_
