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
  // Encodes `kv`.
  GpuTestChunk(const ChunkOptions& options,
               std::shared_ptr<const Calibration> made_for, const KvView& kv);

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

 private:
  void Encode(const KvView& kv);
};

// A chunk of standard normal values in which K and V of `joint_heads` heads
// share streams. A few tokens are larger, so that high parts, patches and raw
// rows occur.
GpuTestChunk JointTestChunk(const ChunkOptions& options, int joint_heads,
                            uint32_t seed);

KvShape ShapeOf(const KvShape& whole, const KvSlice& slice);

// Decodes a slice with a warp's code and with the CPU's decoder. INTERNAL if
// any byte differs, also between rows.
absl::Status CompareWithCpu(const GpuTestChunk& chunk, Level level,
                            const KvSlice& slice, Layout layout);
// The same for pages of 16 tokens in a shuffled order. The chunk has at most 48
// tokens and begins inside a page.
absl::Status ComparePagesWithCpu(const GpuTestChunk& chunk, Level level);

}  // namespace kdn::codec::cuda

#endif  // KDN_TESTS_CODEC_CUDA_GPU_TEST_CHUNK_H_
