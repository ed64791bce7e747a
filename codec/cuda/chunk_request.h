#ifndef KDN_CODEC_CUDA_CHUNK_REQUEST_H_
#define KDN_CODEC_CUDA_CHUNK_REQUEST_H_

#include <cstddef>
#include <cstdint>
#include <variant>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "codec/calibration/calibration.h"
#include "codec/format/object.h"
#include "kv/kv_pages.h"
#include "kv/kv_view.h"

namespace kdn::codec::cuda {

// The places of a slice's rows, in memory of the decoding device: the host does
// not access it. `base` is the row of K in the slice's first layer and first
// head, for the chunk's first token.
struct StridedPlaces {
  std::byte* base = nullptr;
  KvStrides strides;
};

// A request to decode one chunk.
struct ChunkRequest {
  const ObjectIndex* index = nullptr;
  absl::Span<const std::byte> object;  // all its bytes
  Level level = Level::kBase;
  KvSlice slice;
  absl::Span<const int32_t> positions;  // where the reader wants each token
  std::variant<StridedPlaces, KvPages> places;  // pages of the slice
};

// INVALID_ARGUMENT when the request contradicts itself or the object,
// FAILED_PRECONDITION when the object was coded with another calibration,
// DATA_LOSS when the object does not have the length that its index says.
absl::Status CheckRequest(const ChunkRequest& request,
                          const Calibration& calibration);

// The place of a head's row for the chunk's first token, or in pages for the
// first token of block 0. `layer` and `head` count from the start of the slice.
std::byte* BaseOf(const ChunkRequest& request, int layer, KvPart part,
                  int head);

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_CHUNK_REQUEST_H_
