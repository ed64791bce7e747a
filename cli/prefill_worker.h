#ifndef KDN_CLI_PREFILL_WORKER_H_
#define KDN_CLI_PREFILL_WORKER_H_

#include <deque>
#include <future>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "model/llama.h"

namespace kdn::cli {

// A thread that runs forward passes, one after the other, so that the thread of
// the cluster's client stores chunks meanwhile. Its destructor drops the passes
// that have not begun and waits for the one that has.
class PrefillWorker {
 public:
  // `llama` must outlive the worker.
  explicit PrefillWorker(const model::Llama& llama);
  ~PrefillWorker();
  PrefillWorker(const PrefillWorker&) = delete;
  PrefillWorker& operator=(const PrefillWorker&) = delete;

  // Prefills the sequences without logits. The caches and what the sequences
  // point to belong to the worker until the future is ready. The future of a
  // pass that is dropped is CANCELLED.
  std::future<absl::Status> Push(std::vector<model::Sequence> sequences);

 private:
  struct Pass {
    std::vector<model::Sequence> sequences;
    std::promise<absl::Status> done;
  };

  void Run();
  absl::Status Prefill(const Pass& pass);

  const model::Llama& llama_;
  model::Workspace workspace_;  // of the thread
  absl::Mutex mutex_;
  std::deque<Pass> passes_ ABSL_GUARDED_BY(mutex_);
  bool ends_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace kdn::cli

#endif  // KDN_CLI_PREFILL_WORKER_H_
