#include "codec/cuda/teams.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "kv/check.h"

namespace kdn::codec::cuda {
namespace {

// Puts jobs of [first, first + count) with the same key into teams. Returns the
// number of teams.
template <typename KeyOf>
int32_t AddTeams(int32_t first, int32_t count, const KeyOf& key_of,
                 std::vector<Team>* teams) {
  const size_t before = teams->size();
  std::vector<int32_t> order(count);
  std::iota(order.begin(), order.end(), first);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return key_of(a) < key_of(b); });
  for (const int32_t job : order) {
    if (teams->size() == before || teams->back().count == kTeamWarps ||
        key_of(teams->back().jobs[0]) != key_of(job)) {
      Team& team = teams->emplace_back();
      std::fill_n(team.jobs, kTeamWarps, job);
      team.count = 0;
    }
    Team& team = teams->back();
    team.jobs[team.count++] = job;
  }
  return static_cast<int32_t>(teams->size() - before);
}

}  // namespace

TeamPlan PlanTeams(absl::Span<const StreamJob> jobs, int jobs_max) {
  KDN_CHECK(jobs_max > 0, "a slice has jobs");
  const auto values_key = [&](int32_t i) {
    return std::make_tuple(jobs[i].transform, jobs[i].levels, jobs[i].classes);
  };
  // Everything that decides how often the warps of a team wait for each other.
  const auto rows_key = [&](int32_t i) {
    const StreamJob& job = jobs[i];
    return std::make_tuple(job.rope_at, job.pairs, job.tokens, job.head_dim,
                           job.head_end - job.head_begin,
                           job.levels > 0 && job.in_blocks,
                           job.joint_heads > 0 ? i : -1);
  };
  TeamPlan plan;
  const auto count = static_cast<int32_t>(jobs.size());
  for (int32_t first = 0; first < count; first += jobs_max) {
    Slice slice;
    slice.first = first;
    slice.count = std::min(jobs_max, count - first);
    slice.values_first = static_cast<int32_t>(plan.values.size());
    slice.rows_first = static_cast<int32_t>(plan.rows.size());
    slice.values_count =
        AddTeams(slice.first, slice.count, values_key, &plan.values);
    slice.rows_count = AddTeams(slice.first, slice.count, rows_key, &plan.rows);
    plan.slices.push_back(slice);
  }
  return plan;
}

}  // namespace kdn::codec::cuda
