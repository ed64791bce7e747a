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
#include "codec/transform/token_order.h"
#include "codec/transform/transform_stream.h"

namespace kdn::codec::cuda {

// A batch of chunks, which the host takes apart into one job per stream. All
// jobs are of joint streams, or none is: one calibration serves a batch.
// Checksums, lengths, tokens and components are all checked here, and the
// device relies on that. Holds copies of the streams. Thread-compatible.
class BatchPlan {
 public:
  // A plan takes only chunks that were coded with the image's calibration.
  explicit BatchPlan(std::shared_ptr<const CalibrationImage> calibration);

  // Adds the wanted streams of a chunk. INVALID_ARGUMENT when the request
  // contradicts itself or the object, FAILED_PRECONDITION when the object was
  // coded with another calibration, UNIMPLEMENTED when streams of K or V alone
  // have token classes, scales of heads or wide components, DATA_LOSS when a
  // stream is damaged. After an error the plan is as before.
  absl::Status Add(const ChunkRequest& request);

  const CalibrationImage& calibration() const { return *calibration_; }
  const std::vector<StreamJob>& jobs() const { return jobs_; }
  // The streams, followed by kBytesBehind zeros.
  const std::vector<std::byte>& bytes() const { return bytes_; }
  const std::vector<float>& rope() const { return rope_; }
  const std::vector<int32_t>& blocks() const { return blocks_; }
  const std::vector<RowRun>& runs() const { return runs_; }
  const std::vector<ValueRow>& value_rows() const { return value_rows_; }
  const std::vector<float>& scales() const { return scales_; }
  // Whether the jobs are of joint streams.
  bool is_joint() const {
    return calibration().calibration().joint_heads() > 0;
  }
  // The bytes of all rows that the jobs write.
  uint64_t output_bytes() const { return output_bytes_; }
  // The largest tile_bytes() and the largest tile_bands() of a job.
  uint64_t tile_bytes() const;
  int tile_bands() const;
  // DATA_LOSS, naming the stream, when a job has an error. `errors` has one
  // number per job; 0 is no error.
  absl::Status StatusOf(absl::Span<const uint32_t> errors) const;

 private:
  absl::Status AddChunk(const ChunkRequest& request);
  // Adds the streams of one head group, one per level, as one job. `job` has
  // the fields that all jobs of the chunk share.
  absl::Status AddStreams(const ChunkRequest& request, const StreamId& first,
                          StreamJob job);
  // Sets the places of the rows of a stream's wanted heads.
  static void Place(const ChunkRequest& request, const StreamId& first,
                    StreamJob* job);
  // A stream that is being added. `classes` has the class of each token.
  struct Stream;
  absl::Status AddLevels(const ChunkRequest& request, StreamId id,
                         Stream* stream, StreamJob* job);
  absl::Status AddBase(Stream* stream, absl::Span<const std::byte> bytes,
                       StreamJob* job);
  // Adds the runs of the stream's classes and, if the stream is joint, its rows
  // of values and its scales.
  void AddRows(const Stream& stream, const StreamParts& base, StreamJob* job);
  // False when the level is of the form kNothing: then all later levels are
  // too.
  absl::StatusOr<bool> AddRefinement(const Stream& stream,
                                     absl::Span<const std::byte> bytes,
                                     StreamJob* job);
  // Adds the symbols and patches of a level. `begin` is where the stream that
  // has the `parts` was copied to.
  absl::Status AddSymbols(const Stream& stream, const StreamParts& parts,
                          absl::Span<const std::byte> bytes, uint64_t begin,
                          LevelJob* level);
  // Appends a stream to bytes_, with its symbols aligned for a warp, and
  // returns the offset at which the stream begins.
  uint64_t Copy(absl::Span<const std::byte> stream,
                absl::Span<const std::byte> symbols);

  std::shared_ptr<const CalibrationImage> calibration_;
  std::vector<StreamJob> jobs_;
  std::vector<std::byte> bytes_;
  std::vector<float> rope_;
  std::vector<int32_t> blocks_;
  std::vector<RowRun> runs_;
  std::vector<ValueRow> value_rows_;
  std::vector<float> scales_;
  uint64_t output_bytes_ = 0;
  // The name of each job's stream, for messages.
  std::vector<std::string> names_;
};

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_BATCH_PLAN_H_
