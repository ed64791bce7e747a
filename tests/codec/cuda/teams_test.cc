#include "codec/cuda/teams.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

namespace kdn::codec::cuda {
namespace {

std::vector<StreamJob> RandomJobs(int count, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<StreamJob> jobs(count);
  for (StreamJob& job : jobs) {
    job.transform = rng() % 5;
    job.levels = static_cast<int32_t>(rng() % 4);
    job.tokens = rng() % 3 == 0 ? 256 : 40;
    job.head_dim = rng() % 3 == 0 ? 64 : 128;
    job.head_end = 1 + static_cast<int32_t>(rng() % 2);
    job.rope_at = rng() % 4 * 1000;
    job.pairs = rng() % 2 == 0 ? 64 : 0;
    job.in_blocks = rng() % 5 != 0;
  }
  return jobs;
}

// Checks the teams of one slice; `same` says whether two jobs may share a team.
template <typename Same>
void ExpectTeams(absl::Span<const Team> teams, const Slice& slice,
                 const Same& same) {
  std::multiset<int32_t> seen;
  for (const Team& team : teams) {
    ASSERT_GE(team.count, 1);
    ASSERT_LE(team.count, kTeamWarps);
    seen.insert(team.jobs, team.jobs + team.count);
    for (const int32_t job : team.jobs) EXPECT_TRUE(same(team.jobs[0], job));
    for (int i = team.count; i < kTeamWarps; ++i) {
      EXPECT_EQ(team.jobs[i], team.jobs[0]);
    }
  }
  ASSERT_EQ(seen.size(), static_cast<size_t>(slice.count));
  EXPECT_EQ(std::set<int32_t>(seen.begin(), seen.end()).size(), seen.size());
  EXPECT_EQ(*seen.begin(), slice.first);
  EXPECT_EQ(*seen.rbegin(), slice.first + slice.count - 1);
}

TEST(PlanTeams, EveryJobIsInOneTeamOfEachKind) {
  for (const int jobs_max : {1, 7, 64, 1000}) {
    const std::vector<StreamJob> jobs = RandomJobs(333, jobs_max);
    const TeamPlan plan = PlanTeams(jobs, jobs_max);
    int32_t next = 0;
    for (const Slice& slice : plan.slices) {
      EXPECT_EQ(slice.first, next);
      EXPECT_LE(slice.count, jobs_max);
      next += slice.count;
      ExpectTeams(absl::MakeSpan(plan.values)
                      .subspan(slice.values_first, slice.values_count),
                  slice, [&](int32_t a, int32_t b) {
                    return jobs[a].transform == jobs[b].transform &&
                           jobs[a].levels == jobs[b].levels;
                  });
      ExpectTeams(
          absl::MakeSpan(plan.rows).subspan(slice.rows_first, slice.rows_count),
          slice, [&](int32_t a, int32_t b) {
            return jobs[a].rope_at == jobs[b].rope_at &&
                   jobs[a].pairs == jobs[b].pairs &&
                   jobs[a].tokens == jobs[b].tokens &&
                   jobs[a].head_dim == jobs[b].head_dim &&
                   jobs[a].head_end == jobs[b].head_end &&
                   (jobs[a].levels > 0 && jobs[a].in_blocks) ==
                       (jobs[b].levels > 0 && jobs[b].in_blocks);
          });
    }
    EXPECT_EQ(next, 333);
  }
}

TEST(PlanTeams, TeamsAreFullWhereJobsAreAlike) {
  const std::vector<StreamJob> jobs(10);
  const TeamPlan plan = PlanTeams(jobs, 100);
  ASSERT_EQ(plan.slices.size(), 1u);
  ASSERT_EQ(plan.values.size(), 3u);
  EXPECT_EQ(plan.values[0].count, kTeamWarps);
  EXPECT_EQ(plan.values[2].count, 2);
  EXPECT_EQ(plan.rows.size(), 3u);
}

// All warps of a team write the rows of one joint stream. They decode values of
// streams with the same classes of tokens.
TEST(PlanTeams, EachJointStreamHasATeamOfItsOwnForRows) {
  std::vector<StreamJob> jobs(6);
  for (StreamJob& job : jobs) job.joint_heads = 2;
  jobs[1].classes = jobs[4].classes = 6;
  const TeamPlan plan = PlanTeams(jobs, 100);
  ASSERT_EQ(plan.rows.size(), 6u);
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(plan.rows[i].count, 1);
    for (const int32_t job : plan.rows[i].jobs) EXPECT_EQ(job, i);
  }
  ASSERT_EQ(plan.values.size(), 2u);
  EXPECT_EQ(plan.values[0].count, 4);
  EXPECT_EQ(plan.values[1].count, 2);
}

TEST(PlanTeams, NoJobsMakeNoSlices) {
  EXPECT_TRUE(PlanTeams({}, 1).slices.empty());
}

}  // namespace
}  // namespace kdn::codec::cuda
