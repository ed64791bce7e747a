#ifndef KDN_CODEC_ENTROPY_FORMAT_CODER_H_
#define KDN_CODEC_ENTROPY_FORMAT_CODER_H_

#include "codec/entropy/rans.h"

namespace kdn::codec {

// The entropy coder of objects and calibrations. Another coder needs a new
// version of both formats.
using FormatCoder = RansCoder;

}  // namespace kdn::codec

#endif  // KDN_CODEC_ENTROPY_FORMAT_CODER_H_
