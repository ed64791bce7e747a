#ifndef KDN_RPC_GATEWAY_RETRIEVAL_H_
#define KDN_RPC_GATEWAY_RETRIEVAL_H_

#include <kj/async.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "delivery/node_service.h"
#include "kv/clock.h"
#include "kv/meters.h"
#include "rpc/gateway/layer_order.h"
#include "rpc/gateway/session_state.h"
#include "rpc/kdn.capnp.h"

namespace kdn::rpc {

// A checked retrieve request. With a region, every chunk's destination lies in
// it. Without a region, destinations are made later, in `inline_layout`.
struct RetrieveCall {
  std::shared_ptr<const ModelSpec> model;
  Namespace ns;
  std::vector<delivery::RetrieveChunk> chunks;
  KvSlice slice;
  LevelSet accept;
  std::shared_ptr<SharedRegion> region;
  double prefill_tokens_per_second = 0;
  delivery::Reuse reuse = delivery::Reuse::kAnyChunk;
  wire::Layout inline_layout = wire::Layout::TOKEN_MAJOR;
  size_t message_bytes = 0;  // KV in one message of an inline retrieve
};

// Passes complete layers from the node's workers to the loop thread, with one
// wake-up per batch. Thread-safe.
class LayerInbox {
 public:
  explicit LayerInbox(std::function<void()> wake) : wake_(std::move(wake)) {}
  void Push(LayerOrder::Ready layer) ABSL_LOCKS_EXCLUDED(mutex_);
  std::vector<LayerOrder::Ready> TakeAll() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  const std::function<void()> wake_;
  absl::Mutex mutex_;
  std::vector<LayerOrder::Ready> layers_ ABSL_GUARDED_BY(mutex_);
};

// Records the time from the begin of a retrieve to its first complete layer.
// Thread-safe.
class FirstLayer {
 public:
  FirstLayer(std::shared_ptr<Meters> meters, absl::Time begun)
      : meters_(std::move(meters)), begun_(begun) {}
  void OnLayer() {
    if (seen_.load(std::memory_order_relaxed) || seen_.exchange(true)) return;
    meters_->Record("retrieve_first_layer_us", SteadyNow() - begun_);
  }

 private:
  const std::shared_ptr<Meters> meters_;
  const absl::Time begun_;
  std::atomic<bool> seen_{false};
};

// One retrieve in progress. It cuts the retrieve into windows and asks the node
// for each window. Into a region there is one window. Inline, a window has a
// bounded amount of scratch memory, and two windows are in progress so that
// fetching and sending overlap. Layers go to the client's sink one message at a
// time, at the pace at which the client takes them.
//
// Invariant: the node call that fills a window holds the window's memory, also
// when this object is gone. The destructor cancels these calls. Loop thread
// only; owned by shared_ptrs.
class Retrieval final : public std::enable_shared_from_this<Retrieval>,
                        private kj::TaskSet::ErrorHandler {
 public:
  using Outcomes = std::vector<ChunkOutcome>;
  Retrieval(std::shared_ptr<SessionState> session, RetrieveCall call,
            kj::Maybe<wire::LayerSink::Client> sink, CallDeadline deadline);
  ~Retrieval();

  // Resolves when every chunk has its outcome and the sink has every layer.
  // Chunks that are not complete at the deadline fail with DEADLINE_EXCEEDED.
  // With a region, the outcomes come only when the node has stopped writing.
  // Call once, and keep this object alive until the promise resolves.
  kj::Promise<absl::StatusOr<Outcomes>> Run();

 private:
  struct Window {
    int first = 0;
    int count = 0;
    size_t bytes = 0;
    std::shared_ptr<Scratch> scratch;
    std::vector<MutableKvView> views;  // of the scratch, by chunk
    std::shared_ptr<Cancellation> cancellation;
    int unsent = 0;  // its entries in to_send_ that have not been sent
    bool answered = false;
  };

  KvShape ShapeOfSlice(int chunk) const;
  // Of each message: 1 into a region.
  int LayersPerMessage() const;
  void CutIntoWindows();
  void StartWindows();
  void StartWindow(int index);
  void AskNode(int index);
  void OnAnswer(int index, absl::StatusOr<Outcomes> outcomes);
  void TakeLayers();
  void Send();
  kj::Promise<void> SendAll();
  // Fails when the engine has taken no layer since `since` for too long.
  kj::Promise<void> FailWhenStalled(kj::TimePoint since);
  kj::Promise<void> WhenWritable();
  kj::Promise<void> SendOne();
  kj::Promise<void> SendNotices();
  kj::Promise<void> SendData(LayerOrder::Ready next);
  // Resolves when few enough bytes of layers are unanswered.
  kj::Promise<void> WhenEngineKeepsUp();
  void taskFailed(kj::Exception&& broken) override;
  void FinishWindowIfDone(int index);
  kj::Promise<absl::StatusOr<Outcomes>> Farewell();
  kj::Promise<absl::StatusOr<Outcomes>> OnDeadline();
  Outcomes OutcomesByNow() const;
  void Fail(absl::Status why);
  void Cancel();

  std::shared_ptr<SessionState> session_;
  RetrieveCall call_;
  kj::Maybe<wire::LayerSink::Client> sink_;
  CallDeadline deadline_;
  const std::shared_ptr<FirstLayer> first_layer_;
  LayerOrder order_;
  std::shared_ptr<LayerInbox> inbox_;
  std::vector<Window> windows_;
  std::vector<int> window_of_;  // by chunk
  int next_window_ = 0;
  int active_windows_ = 0;
  int finished_windows_ = 0;
  std::vector<LayerOrder::Ready> to_send_;  // sent up to next_to_send_
  size_t next_to_send_ = 0;
  bool sending_ = false;
  Outcomes outcomes_;
  std::vector<bool> settled_;  // by chunk: outcome known, layers sent
  kj::Own<kj::PromiseFulfiller<absl::Status>> finished_;
  // Set at the deadline; fulfilled when the node has stopped writing the
  // region.
  kj::Own<kj::PromiseFulfiller<void>> region_still_;
  kj::Promise<void> send_promise_ = nullptr;
  std::vector<kj::Promise<void>> window_promises_;
  size_t unanswered_bytes_ = 0;  // of layers that were sent
  kj::Own<kj::PromiseFulfiller<void>> answered_;
  kj::TaskSet answers_;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_GATEWAY_RETRIEVAL_H_
