#ifndef KDN_TESTS_ACTORS_ACTORS_FIXTURE_H_
#define KDN_TESTS_ACTORS_ACTORS_FIXTURE_H_

#include <gtest/gtest.h>

#include <caf/all.hpp>
#include <caf/scheduler/test_coordinator.hpp>
#include <chrono>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "actors/node_context.h"
#include "actors/placement_actor.h"
#include "actors/storage_actor.h"
#include "actors/wire.h"

namespace kdn::actors {

class ManualClock final : public Clock {
 public:
  absl::Time Now() const override { return now_; }
  absl::Time WallNow() const override { return now_; }
  void Advance(absl::Duration step) { now_ += step; }

 private:
  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
};

// A transport that keeps every transfer until the test ends it.
class HeldTransport final : public delivery::PeerTransport {
 public:
  using PushDone = delivery::Done<absl::StatusOr<delivery::PushReceipt>>;

  delivery::FetchId Fetch(delivery::FetchRequest request,
                          std::unique_ptr<delivery::FetchSink> sink) override {
    sink->OnBegin();
    fetches.push_back({std::move(request), std::move(sink)});
    return delivery::FetchId(fetches.size() - 1);
  }
  void CancelFetch(delivery::FetchId fetch) override {
    cancelled.push_back(fetch.value());
  }
  void Push(delivery::PushRequest request, PushDone done) override {
    pushes.push_back({std::move(request), std::move(done)});
  }
  void FetchCalibration(
      const NodeId& peer, const codec::CalibrationId& id, uint64_t, absl::Time,
      delivery::Done<absl::StatusOr<std::vector<std::byte>>> done) override {
    calibrations.push_back({peer, id, std::move(done)});
  }
  void FailPeer(const NodeId& peer) override { failed.push_back(peer); }

  struct HeldFetch {
    delivery::FetchRequest request;
    std::unique_ptr<delivery::FetchSink> sink;
  };
  struct HeldPush {
    delivery::PushRequest request;
    PushDone done;
  };
  struct HeldCalibration {
    NodeId peer;
    codec::CalibrationId id;
    delivery::Done<absl::StatusOr<std::vector<std::byte>>> done;
  };
  std::vector<HeldCalibration> calibrations;
  std::vector<HeldFetch> fetches;
  std::vector<HeldPush> pushes;
  std::vector<size_t> cancelled;  // indices of fetches
  std::vector<NodeId> failed;
};

// Counts the answers to one call, and keeps the last one.
template <typename T>
struct Answer {
  int times = 0;
  absl::StatusOr<T> value = absl::UnknownError("not answered");

  Reply<T> AsReply() {
    return Reply<T>::To([this](absl::StatusOr<T> result) {
      ++times;
      value = std::move(result);
    });
  }
};

// Actors on CAF's deterministic scheduler: actors run, and time passes, only
// when the test says so. One actor system has three nodes: "a" is under test,
// "b" and "c" have only storage actors.
class ActorsTest : public testing::Test {
 protected:
  ActorsTest();
  ~ActorsTest() override;

  // Runs all actors until no message is left.
  void Run() { scheduler_.run(); }
  // Runs all actors and the tasks of the worker pool until both are idle.
  void RunWithPool();
  // Advances both clocks by one tick of the storage actors at a time.
  void Advance(absl::Duration time);
  // The view of `self`: the nodes in live_ serve, the other nodes are away.
  std::shared_ptr<const ClusterView> ViewOf(const NodeId& self) const;
  // Publishes the view of the node under test.
  void Publish();
  StorageActor SpawnStorage(size_t arena_bytes = 1u << 20,
                            storage::DiskTier* disk = nullptr);
  // Gives the peer `id` a node actor and a context.
  NodeContext& SpawnNode(const NodeId& id);
  // Spawns a storage actor that never answers.
  StorageActor SpawnSilent();

  // Chunk number `i` of namespace "t".
  static ChunkRef RefOf(int i);
  // The first chunk number from `from` on whose owners are `owners`, first
  // owner first.
  int NumberOwnedBy(const std::vector<NodeId>& owners, int from = 0) const;
  // A standalone chunk of `tokens` tokens whose first owners are `owners`.
  ChunkIdentity IdentityOwnedBy(const ModelSpec& model, int tokens,
                                const std::vector<NodeId>& owners) const;
  storage::ObjectInfo InfoOf(int i, size_t bytes) const;
  // Stores chunk `i` in `storage`: `bytes` bytes of the value `i`.
  void Put(const StorageActor& storage, int i, size_t bytes,
           absl::Time expires = absl::InfinitePast());
  absl::Time In(absl::Duration time) const { return clock_.Now() + time; }

  struct Config : caf::actor_system_config {
    Config() {
      add_message_types<caf::id_block::kdn>();
      set("scheduler.policy", caf::atom("testing"));
    }
  };
  ManualClock clock_;
  Config config_;
  caf::actor_system system_{config_};
  caf::scheduler::test_coordinator& scheduler_ =
      dynamic_cast<caf::scheduler::test_coordinator&>(system_.scheduler());
  HeldTransport transport_;
  HeldKeys held_;
  Meters meters_;
  const NodeId a_{"a"};
  const NodeId b_{"b"};
  const NodeId c_{"c"};
  std::deque<ViewHolder> views_;  // of each node
  std::unique_ptr<NodeContext> node_;
  LiveNodes live_;
  std::vector<StorageActor> spawned_;
  std::vector<std::unique_ptr<NodeContext>> peers_;
  std::vector<NodeActor> peer_actors_;
};

}  // namespace kdn::actors

#endif  // KDN_TESTS_ACTORS_ACTORS_FIXTURE_H_
