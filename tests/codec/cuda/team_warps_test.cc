#include <gtest/gtest.h>

#include <barrier>
#include <memory>
#include <thread>
#include <vector>

#include "codec/cuda/device_stream.h"
#include "codec/cuda/host_batch.h"
#include "codec/cuda/host_warp.h"
#include "codec/cuda/teams.h"
#include "tests/codec/cuda/gpu_test_chunk.h"

namespace kdn::codec::cuda {
namespace {

// A warp of a team of kTeamWarps warps, each of which runs on a thread of its
// own. So the warps' shares of the work, and the places where they wait for
// each other, are tested without a GPU.
class TeamWarp : public HostWarp {
 public:
  TeamWarp(int rank, bool is_active, std::barrier<>* barrier)
      : rank_(rank), is_active_(is_active), barrier_(barrier) {}

  static constexpr int kTeam = kTeamWarps;
  int rank() const { return rank_; }
  bool is_active() const { return is_active_; }
  template <int kCount, typename F>
  void ForTeam(const F& f) const {
    for (int i = rank_; i < kCount; i += kTeam) f(i);
  }
  void SyncTeam() const { barrier_->arrive_and_wait(); }

 private:
  int rank_;
  bool is_active_;
  std::barrier<>* barrier_;
};

// Calls f(warp) for the warps of a team. `active` warps have a job.
template <typename F>
void RunTeam(int active, const F& f) {
  std::barrier<> barrier(kTeamWarps);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kTeamWarps; ++rank) {
    threads.emplace_back(
        [&, rank] { f(TeamWarp(rank, rank < active, &barrier)); });
  }
  for (std::thread& thread : threads) thread.join();
}

// Decodes a plan as the kernels do.
class TeamDecoder {
 public:
  explicit TeamDecoder(const BatchPlan& plan)
      : plan_(plan),
        errors_(plan.jobs().size()),
        batch_(HostBatchOf(plan, errors_.data())) {
    for (const StreamJob& job : plan.jobs()) {
      values_.push_back(std::make_unique<int8_t[]>(job.tile_bytes()));
    }
  }

  absl::Status Decode() {
    const TeamPlan teams = PlanTeams(plan_.jobs(), 1000);
    for (const Team& team : teams.values) {
      if (plan_.is_joint()) {
        DecodeTeam<true>(team);
      } else {
        DecodeTeam<false>(team);
      }
    }
    for (const Team& team : teams.rows) {
      if (plan_.is_joint()) {
        WriteJoint(team);
      } else {
        Write(team);
      }
    }
    return plan_.StatusOf(errors_);
  }

 private:
  template <bool kJoint>
  void DecodeTeam(const Team& team) {
    const auto room = std::make_unique<ValuesRoom>();
    RunTeam(team.count, [&](const TeamWarp& warp) {
      const int at = team.jobs[warp.rank()];
      const bool good = DecodeStream<kJoint>(warp, batch_, plan_.jobs()[at],
                                             room.get(), values_[at].get());
      if (warp.is_active()) errors_[at] = good ? 0 : 1;
    });
  }
  void Write(const Team& team) {
    const auto room =
        std::make_unique<RowsRoom<kDimMax / (kBlockBands * kBandBytes)>>();
    RunTeam(team.count, [&](const TeamWarp& warp) {
      const int at = team.jobs[warp.rank()];
      WriteStream(warp, batch_, plan_.jobs()[at], values_[at].get(),
                  room.get());
    });
  }
  void WriteJoint(const Team& team) {
    const auto room = std::make_unique<JointRoom>();
    const int at = team.jobs[0];
    RunTeam(kTeamWarps, [&](const TeamWarp& warp) {
      WriteJointStream(warp, batch_, plan_.jobs()[at], values_[at].get(),
                       room.get());
    });
  }

  const BatchPlan& plan_;
  std::vector<uint32_t> errors_;
  std::vector<std::unique_ptr<int8_t[]>> values_;
  BatchRef batch_;
};

// Decodes copies of a chunk together, at different positions.
void ExpectSame(const GpuTestChunk& chunk, Level level) {
  constexpr int kCopies = 5;
  const KvShape& shape = chunk.header.shape;
  BatchPlan plan(chunk.image);
  std::vector<KvBuffer> decoded;
  for (int i = 0; i < kCopies; ++i) {
    decoded.emplace_back(shape, Layout::kTokenMajor);
    const auto positions = chunk.PositionsFrom(100 * i);
    ASSERT_TRUE(plan.Add(chunk.Request(level, chunk.All(), positions,
                                       decoded.back().view()))
                    .ok());
  }
  const absl::Status status = TeamDecoder(plan).Decode();
  ASSERT_TRUE(status.ok()) << status;
  for (int i = 0; i < kCopies; ++i) {
    KvBuffer expected(shape, Layout::kTokenMajor);
    ASSERT_TRUE(chunk
                    .DecodeOnCpu(level, chunk.All(),
                                 chunk.PositionsFrom(100 * i), expected.view())
                    .ok());
    EXPECT_EQ(expected.bytes(), decoded[i].bytes()) << i;
  }
}

ChunkOptions OptionsOf(int head_dim, RopePairing pairing) {
  ChunkOptions options;
  options.shape = {2, 2, 150, head_dim, Dtype::kBf16};
  options.rotary_dim = head_dim;
  options.pairing = pairing;
  options.levels = LevelSet::Of(Level::kBase2).WithRefined();
  return options;
}

TEST(TeamWarps, DecodeJointStreamsAsTheCpuDoes) {
  for (const int head_dim : {24, 64, 128}) {
    for (const RopePairing pairing : {RopePairing::kNeoX, RopePairing::kGptJ}) {
      SCOPED_TRACE(head_dim);
      ChunkOptions options = OptionsOf(head_dim, pairing);
      options.levels = options.levels.With(Level::kArchive);
      const GpuTestChunk chunk = JointTestChunk(options, 2, 7);
      for (const Level level : {Level::kArchive, Level::kBase, Level::kBase2}) {
        ExpectSame(chunk, level);
      }
    }
  }
}

TEST(TeamWarps, DecodeStreamsOfKAndVAsTheCpuDoes) {
  for (const int head_dim : {24, 128}) {
    for (const RopePairing pairing : {RopePairing::kNeoX, RopePairing::kGptJ}) {
      SCOPED_TRACE(head_dim);
      const GpuTestChunk chunk(OptionsOf(head_dim, pairing),
                               Coding::kCalibrated, 7);
      for (const Level level : {Level::kBase, Level::kBase2}) {
        ExpectSame(chunk, level);
      }
    }
  }
}

}  // namespace
}  // namespace kdn::codec::cuda
