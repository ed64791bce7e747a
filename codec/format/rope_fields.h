#ifndef KDN_CODEC_FORMAT_ROPE_FIELDS_H_
#define KDN_CODEC_FORMAT_ROPE_FIELDS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "codec/format/byte_io.h"
#include "codec/format/object.h"

namespace kdn::codec {

// The RoPE part of a header: the distinct descriptors in the order in which
// layers first use them, then, if there is more than one, the number of each
// layer's descriptor.
struct RopeTableFields {
  std::vector<RopeSpec> distinct;
  std::vector<uint8_t> of_layer;  // empty if there is one descriptor
};

inline constexpr size_t kRopesMax = 255;

RopeTableFields RopeTableOf(const ObjectHeader& header);
size_t RopeTableBytes(size_t ropes, int layers);
void WriteRopeTable(const RopeTableFields& table, ByteWriter* out);
// Returns one RopeSpec if all layers have the same, else one for each layer.
// DATA_LOSS unless RopeTableOf gives this table. The fields may be out of
// bounds: CheckHeader checks them.
absl::StatusOr<std::vector<RopeSpec>> ReadRopeTable(size_t ropes, int layers,
                                                    ByteReader* in);

// The fields of a descriptor that are doubles. Version 2 has them apart from
// the integers.
inline constexpr size_t kRopeDoubles = 7;
void ReadRopeDoubles(ByteReader* in, RopeSpec* rope);

}  // namespace kdn::codec

#endif  // KDN_CODEC_FORMAT_ROPE_FIELDS_H_
