#ifndef KDN_CODEC_CUDA_TEAMS_H_
#define KDN_CODEC_CUDA_TEAMS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "codec/cuda/stream_job.h"

namespace kdn::codec::cuda {

// The jobs [first, first + count) of a batch, which are decoded together, and
// their teams, as ranges of TeamPlan::values and TeamPlan::rows. Each job is in
// one team for its values and in one for its rows.
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
  // Teams of jobs with the same transform, number of levels and classes of
  // tokens: they decode with the same tables.
  std::vector<Team> values;
  // Teams of jobs of one chunk, all K or all V, of one shape: they use the same
  // cosines and sines, and go through their rows in step. A joint stream has a
  // team of its own.
  std::vector<Team> rows;
};

// Puts the jobs into slices of at most `jobs_max` jobs, and the jobs of each
// slice into teams. REQUIRES: jobs_max is at least 1.
TeamPlan PlanTeams(absl::Span<const StreamJob> jobs, int jobs_max);

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_TEAMS_H_
