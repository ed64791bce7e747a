#ifndef KDN_CODEC_KERNELS_STREAM_ROWS_H_
#define KDN_CODEC_KERNELS_STREAM_ROWS_H_

#include <vector>

#include "codec/format/object.h"
#include "codec/stream_codec.h"
#include "kv/kv_view.h"

namespace kdn::codec {

// One head's K or V among the heads that share a stream.
struct StreamHead {
  KvPart part = KvPart::kK;
  int head = 0;  // of the layer
};
// Head number `i` of a stream. In a joint stream, K of all heads comes first.
inline StreamHead HeadOf(const StreamShape& shape, const StreamId& id, int i) {
  const int heads = shape.joint ? shape.heads / 2 : shape.heads;
  return {i < heads ? id.part : KvPart::kV, id.head_group * heads + i % heads};
}

// The rows of the heads that share a stream.
inline std::vector<Rows> RowsOfStream(const KvView& layer_kv,
                                      const StreamShape& shape,
                                      const StreamId& id) {
  std::vector<Rows> rows;
  rows.reserve(shape.heads);
  for (int i = 0; i < shape.heads; ++i) {
    const StreamHead at = HeadOf(shape, id, i);
    rows.push_back(RowsOf(layer_kv, at.part, at.head));
  }
  return rows;
}

}  // namespace kdn::codec

#endif  // KDN_CODEC_KERNELS_STREAM_ROWS_H_
