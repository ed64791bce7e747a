#ifndef KDN_CODEC_CALIBRATION_TRANSFORM_SIZES_H_
#define KDN_CODEC_CALIBRATION_TRANSFORM_SIZES_H_

#include <cstddef>

#include "codec/calibration/calibration.h"
#include "codec/format/stream_layout.h"

namespace kdn::codec {

// The sizes of the transforms that a calibration has.
struct TransformSizes {
  int heads = 0;   // whose K, or K and V, share a stream
  int dim = 0;     // of a stream's rows
  int groups = 0;  // of heads
  size_t count = 0;

  int components() const {
    return (dim + kBandComponents - 1) / kBandComponents * kBandComponents;
  }
};

// `joint_heads` as in Calibration. REQUIRES: it is at least 0.
inline TransformSizes SizesOf(const Calibration::Geometry& geometry,
                              int joint_heads) {
  const KvShape shape = {geometry.layers, geometry.kv_heads, 1,
                         geometry.head_dim, Dtype::kBf16};
  const StreamGrid grid(shape, joint_heads);
  const bool joint = grid.IsJoint(Level::kBase);
  TransformSizes sizes;
  sizes.heads = grid.HeadsOf(KvPart::kK, Level::kBase);
  sizes.dim = sizes.heads * geometry.head_dim * (joint ? 2 : 1);
  sizes.groups = geometry.kv_heads / sizes.heads;
  sizes.count =
      static_cast<size_t>(geometry.layers) * sizes.groups * (joint ? 1 : 2);
  return sizes;
}

}  // namespace kdn::codec

#endif  // KDN_CODEC_CALIBRATION_TRANSFORM_SIZES_H_
