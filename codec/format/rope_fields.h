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
// layers use them first, then, if there are more than one, each layer's. What
// is read may be out of bounds; CheckHeader tells.
struct RopeTableFields {
  std::vector<RopeSpec> distinct;
  std::vector<uint8_t> of_layer;  // empty where there is one descriptor
};

inline constexpr size_t kRopesMax = 255;

RopeTableFields RopeTableOf(const ObjectHeader& header);
size_t RopeTableBytes(size_t ropes, int layers);
void WriteRopeTable(const RopeTableFields& table, ByteWriter* out);
// One descriptor for all layers, or one for each. DATA_LOSS unless the table is
// one that RopeTableOf gives.
absl::StatusOr<std::vector<RopeSpec>> ReadRopeTable(size_t ropes, int layers,
                                                    ByteReader* in);

// The numbers that are not integers, as version 2 has them by themselves too.
inline constexpr size_t kRopeDoubles = 7;
void ReadRopeDoubles(ByteReader* in, RopeSpec* rope);

}  // namespace kdn::codec

#endif  // KDN_CODEC_FORMAT_ROPE_FIELDS_H_
