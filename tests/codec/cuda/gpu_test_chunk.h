#ifndef KDN_TESTS_CODEC_CUDA_GPU_TEST_CHUNK_H_
#define KDN_TESTS_CODEC_CUDA_GPU_TEST_CHUNK_H_

#include <memory>
#include <optional>
#include <vector>

#include "codec/cuda/batch_plan.h"
#include "tests/codec/test_chunk.h"

namespace kdn::codec::cuda {

enum class Coding {
  kUncalibrated,  // each stream has its own mean and scale
  kCalibrated,    // bands in every form, some rows raw, some values patched
  kNoise,         // values that a calibration does not fit
};

// An encoded chunk, with the calibration that it needs.
struct GpuTestChunk {
  GpuTestChunk(const ChunkOptions& options, Coding coding, uint32_t seed,
               int components = 0);

  KvSlice All() const {
    return {0, header.shape.layers, 0, header.shape.kv_heads};
  }
  std::vector<int32_t> PositionsFrom(int32_t first) const;
  // Decodes the chunk with the CPU's decoder.
  absl::Status DecodeOnCpu(Level level, const KvSlice& slice,
                           absl::Span<const int32_t> positions,
                           const MutableKvView& kv) const;
  ChunkRequest Request(Level level, const KvSlice& slice,
                       absl::Span<const int32_t> positions,
                       const MutableKvView& kv) const;

  ObjectHeader header;
  std::shared_ptr<const Calibration> calibration;
  std::shared_ptr<const CalibrationImage> image;
  std::vector<std::byte> object;
  std::optional<ObjectIndex> index;
};

KvShape ShapeOf(const KvShape& whole, const KvSlice& slice);

}  // namespace kdn::codec::cuda

#endif  // KDN_TESTS_CODEC_CUDA_GPU_TEST_CHUNK_H_
