#ifndef KDN_TESTS_RPC_FAKE_NODE_H_
#define KDN_TESTS_RPC_FAKE_NODE_H_

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"
#include "delivery/node_service.h"

namespace kdn::rpc {

// A node that keeps raw KV in a map and answers on a thread of its own. A test
// can make it silent, slow or wrong. Thread-safe.
class FakeNode final : public delivery::NodeService {
 public:
  FakeNode();
  ~FakeNode() override;

  // While silent, the node answers no calls. Speak answers them.
  void BeSilent();
  void Speak();
  // Runs on the node's thread before each layer of a retrieve is copied.
  void set_before_layer(std::function<void(int chunk, int layer)> hook);
  // True: the layers of a chunk are completed in reverse order.
  void set_layers_backwards(bool on) { layers_backwards_ = on; }
  void set_outcome(const ChunkKey& key, ChunkOutcome outcome);
  void set_begin_store(absl::Status status);

  int sessions_open() const;
  int pins() const;
  int pins_made() const;
  // Layers of stores that the node has not encoded yet.
  int layers_waiting() const;
  int retrieves_cancelled() const;
  bool WaitForSessionsOpen(int count) const;
  bool WaitForCancelled(int count) const;
  std::vector<int32_t> stored_positions(const ChunkKey& key) const;
  delivery::StoreRequest last_store() const;

  void BeginStore(
      delivery::StoreRequest request,
      delivery::Done<absl::StatusOr<std::unique_ptr<delivery::ChunkWriter>>>
          done) override;
  void Lookup(
      std::vector<ChunkRef> chunks, Namespace ns, absl::Time deadline,
      delivery::Done<absl::StatusOr<std::vector<LookupResult>>> done) override;
  void Retrieve(delivery::RetrieveRequest request, OnLayer on_layer,
                delivery::Done<std::vector<ChunkOutcome>> done) override;
  void Pin(std::vector<ChunkRef> chunks, Namespace ns, SessionId session,
           absl::Time expires, absl::Time deadline,
           delivery::Done<std::vector<absl::Status>> done) override;
  void Unpin(std::vector<ChunkRef> chunks, Namespace ns, SessionId session,
             absl::Time deadline,
             delivery::Done<std::vector<absl::Status>> done) override;
  void Remove(std::vector<ChunkRef> chunks, Namespace ns, SessionId session,
              absl::Time deadline,
              delivery::Done<std::vector<absl::Status>> done) override;
  void StoreCalibration(
      std::vector<std::byte> bytes, absl::Time deadline,
      delivery::Done<absl::StatusOr<CalibrationReceipt>> done) override;
  void Calibrations(
      delivery::Done<absl::StatusOr<std::vector<CalibrationEntry>>> done)
      override;
  absl::StatusOr<std::unique_ptr<delivery::CalibrationRun>> BeginCalibration(
      const ModelSpec& model) override;
  SessionId OpenSession() override;
  void CloseSession(SessionId session) override;
  void Status(absl::Time deadline,
              delivery::Done<std::vector<NodeStatus>> done) override;
  NodeId self() const override { return NodeId("fake"); }

 private:
  friend class FakeChunkWriter;
  using Task = absl::AnyInvocable<void()>;
  struct Chunk {
    KvShape shape;
    std::vector<std::byte> bytes;  // token-major
    std::vector<int32_t> positions;
    LevelSet levels;
  };
  using Name = std::pair<std::string, ChunkKey>;

  void Do(Task task);
  void CountLayer(int by);
  void Work();
  ChunkOutcome Deliver(const delivery::RetrieveRequest& request, int index,
                       const OnLayer& on_layer);

  mutable absl::Mutex mutex_;
  std::map<Name, Chunk> chunks_ ABSL_GUARDED_BY(mutex_);
  std::map<ChunkKey, ChunkOutcome> outcomes_ ABSL_GUARDED_BY(mutex_);
  std::vector<CalibrationEntry> calibrations_ ABSL_GUARDED_BY(mutex_);
  std::set<uint64_t> sessions_ ABSL_GUARDED_BY(mutex_);
  std::set<std::pair<uint64_t, ChunkKey>> pins_ ABSL_GUARDED_BY(mutex_);
  int pins_made_ ABSL_GUARDED_BY(mutex_) = 0;
  int layers_waiting_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t next_session_ ABSL_GUARDED_BY(mutex_) = 1;
  int cancelled_ ABSL_GUARDED_BY(mutex_) = 0;
  bool silent_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status begin_store_ ABSL_GUARDED_BY(mutex_);
  std::function<void(int, int)> before_layer_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<delivery::StoreRequest> last_store_ ABSL_GUARDED_BY(mutex_);
  std::vector<Task> tasks_ ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> layers_backwards_{false};
  std::thread worker_;
};

}  // namespace kdn::rpc

#endif  // KDN_TESTS_RPC_FAKE_NODE_H_
