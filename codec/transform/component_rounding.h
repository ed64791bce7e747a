#ifndef KDN_CODEC_TRANSFORM_COMPONENT_ROUNDING_H_
#define KDN_CODEC_TRANSFORM_COMPONENT_ROUNDING_H_

#include <cstdint>

#include "codec/calibration/calibration.h"

namespace kdn::codec {

// The largest value of a wide component, in the finest steps.
inline constexpr int kWideMax =
    CellOf(0) * (kHighMax * kHighRadix + kHighRadix / 2) + CellOf(0) / 2;

// Rounds a token's components to values of the finest level. A wide component
// becomes a low part, in its place, and 9 times its high part, behind all
// components. `values` gets transform.columns() values. False when a component
// is out of range or NaN; then `values` is unusable.
bool RoundComponents(const StreamTransform& transform, const float* components,
                     int8_t* values);

}  // namespace kdn::codec

#endif  // KDN_CODEC_TRANSFORM_COMPONENT_ROUNDING_H_
