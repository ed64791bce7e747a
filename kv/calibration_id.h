#ifndef KDN_KV_CALIBRATION_ID_H_
#define KDN_KV_CALIBRATION_ID_H_

#include "kv/digest.h"

namespace kdn {

// The SHA-256 of a calibration's file. Zero: the built-in calibration, or no
// level of the object needs one.
using CalibrationId = Digest<struct CalibrationIdTag>;

}  // namespace kdn

#endif  // KDN_KV_CALIBRATION_ID_H_
