#ifndef KDN_CODEC_WHOLE_OBJECT_H_
#define KDN_CODEC_WHOLE_OBJECT_H_

#include <cstddef>
#include <memory>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "codec/calibration/calibration.h"
#include "codec/format/object.h"
#include "kv/kv_view.h"
#include "kv/level.h"
#include "kv/line_vector.h"

namespace kdn::codec {

// Encodes all layers of `kv` one after the other on this thread, and resizes
// `object` to the encoded size. Errors are those of ObjectEncoder.
absl::Status EncodeWhole(const ObjectHeader& header,
                         const std::shared_ptr<const Calibration>& calibration,
                         const KvView& kv, LineVector<std::byte>& object);
// Decodes all layers and heads of a whole object. Errors are those of
// ObjectIndex and ObjectDecoder.
absl::Status DecodeWhole(absl::Span<const std::byte> object, Level level,
                         const std::shared_ptr<const Calibration>& calibration,
                         absl::Span<const int32_t> positions,
                         const MutableKvView& out);

}  // namespace kdn::codec

#endif  // KDN_CODEC_WHOLE_OBJECT_H_
