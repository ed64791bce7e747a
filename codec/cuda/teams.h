#ifndef KDN_CODEC_CUDA_TEAMS_H_
#define KDN_CODEC_CUDA_TEAMS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "codec/cuda/stream_job.h"

namespace kdn::codec::cuda {

// Jobs [first, first + count) of a batch, which are decoded together, and their
// teams: each job is in one for its values and in one for its rows.
struct Slice {
  int32_t first = 0;
  int32_t count = 0;
  int32_t values_first = 0;
  int32_t values_count = 0;
  int32_t rows_first = 0;
  int32_t rows_count = 0;
};

struct TeamPlan {
  std::vector<Slice> slices;
  // Of one transform and as many levels: they decode with the same tables.
  std::vector<Team> values;
  // Of one chunk, keys or values, and of one shape: they turn by the same
  // cosines and sines, and go through their rows in step.
  std::vector<Team> rows;
};

// At most `jobs_max` jobs a slice. REQUIRES: that is at least one.
TeamPlan PlanTeams(absl::Span<const StreamJob> jobs, int jobs_max);

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_TEAMS_H_
