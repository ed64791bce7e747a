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

// Where a slice's rows go, in memory of whatever decodes them: nothing here is
// dereferenced on the host. `base` has layer 0 of the slice, K, its first head,
// the chunk's first token.
struct StridedPlaces {
  std::byte* base = nullptr;
  KvStrides strides;
};

// One chunk to be decoded.
struct ChunkRequest {
  const ObjectIndex* index = nullptr;
  absl::Span<const std::byte> object;  // all of it
  Level level = Level::kBase;
  KvSlice slice;
  absl::Span<const int32_t> positions;  // where the reader wants each token
  std::variant<StridedPlaces, KvPages> places;  // pages of the slice
};

// INVALID_ARGUMENT when the request contradicts itself or the object,
// FAILED_PRECONDITION when the object was coded with another calibration.
absl::Status CheckRequest(const ChunkRequest& request,
                          const Calibration& calibration);

// Where one stream's first wanted head goes, `layer` and `head` being relative
// to the slice; RowPlaces says the rest.
std::byte* BaseOf(const ChunkRequest& request, int layer, KvPart part,
                  int head);

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_CHUNK_REQUEST_H_
