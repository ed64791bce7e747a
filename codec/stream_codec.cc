#include "codec/stream_codec.h"

#include "codec/int8_codec.h"
#include "codec/lossless/lossless_codec.h"
#include "codec/transform/transform_codec.h"
#include "kv/check.h"

namespace kdn::codec {

const StreamCodec& CodecOf(Level level) {
  static const LosslessCodec lossless;
  static const Int8Codec int8;
  static const TransformCodec transform;
  switch (level) {
    case Level::kLossless:
      return lossless;
    case Level::kInt8:
      return int8;
    case Level::kBase:
    case Level::kBase1:
    case Level::kBase2:
    case Level::kArchive:
      return transform;
  }
  KDN_CHECK(false, "level out of range");
  return lossless;
}

}  // namespace kdn::codec
