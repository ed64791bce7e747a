#ifndef KDN_CODEC_CUDA_BATCH_PLAN_H_
#define KDN_CODEC_CUDA_BATCH_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "codec/cuda/calibration_image.h"
#include "codec/cuda/chunk_request.h"
#include "codec/cuda/stream_job.h"
#include "codec/format/object.h"
#include "codec/stream_codec.h"
#include "codec/transform/transform_stream.h"

namespace kdn::codec::cuda {

// Chunks taken apart into one job per stream, on the host. What is on the
// device later believes this only: checksums, lengths, tokens and components
// are all checked here. Holds copies of the streams. Thread-compatible.
class BatchPlan {
 public:
  // All chunks of a plan were coded with the image's calibration.
  explicit BatchPlan(std::shared_ptr<const CalibrationImage> calibration);

  // INVALID_ARGUMENT when the request contradicts itself or the object,
  // FAILED_PRECONDITION when it was coded with another calibration, DATA_LOSS
  // when a stream is damaged. The plan is as before then.
  absl::Status Add(const ChunkRequest& request);

  const CalibrationImage& calibration() const { return *calibration_; }
  const std::vector<StreamJob>& jobs() const { return jobs_; }
  // With kBytesBehind zeros.
  const std::vector<std::byte>& bytes() const { return bytes_; }
  const std::vector<float>& rope() const { return rope_; }
  const std::vector<int32_t>& blocks() const { return blocks_; }
  // Of rows that the jobs write.
  uint64_t output_bytes() const { return output_bytes_; }
  // The largest job's.
  uint64_t tile_bytes() const;
  int tile_bands() const;
  // DATA_LOSS naming the first job that has an error; one for each job.
  absl::Status StatusOf(absl::Span<const uint32_t> errors) const;

 private:
  absl::Status AddChunk(const ChunkRequest& request);
  // The streams of one head group; `job` has what they share with the others.
  absl::Status AddStreams(const ChunkRequest& request, const StreamId& first,
                          StreamJob job);
  absl::Status AddBase(const StreamFrame& frame,
                       absl::Span<const std::byte> stream,
                       const StreamTransform& transform, StreamJob* job);
  // False when the stream has nothing to add, nor have those behind it.
  absl::StatusOr<bool> AddRefinement(const StreamFrame& frame,
                                     absl::Span<const std::byte> stream,
                                     const StreamTransform& transform,
                                     StreamJob* job);
  // Copies the stream behind the others, its symbols aligned as a warp wants
  // them, and returns where it begins.
  uint64_t Copy(absl::Span<const std::byte> stream,
                absl::Span<const std::byte> symbols);

  std::shared_ptr<const CalibrationImage> calibration_;
  std::vector<StreamJob> jobs_;
  std::vector<std::byte> bytes_;
  std::vector<float> rope_;
  std::vector<int32_t> blocks_;
  uint64_t output_bytes_ = 0;
  // Of each job, for messages.
  std::vector<std::string> names_;
};

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_BATCH_PLAN_H_
