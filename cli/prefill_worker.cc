#include "cli/prefill_worker.h"

#include <utility>

namespace kdn::cli {

PrefillWorker::PrefillWorker(const model::Llama& llama)
    : llama_(llama), thread_([this] { Run(); }) {}

PrefillWorker::~PrefillWorker() {
  {
    const absl::MutexLock lock(&mutex_);
    ends_ = true;
    for (Pass& pass : passes_) {
      pass.done.set_value(absl::CancelledError("the pass was not needed"));
    }
    passes_.clear();
  }
  thread_.join();
}

std::future<absl::Status> PrefillWorker::Push(
    std::vector<model::Sequence> sequences) {
  Pass pass{std::move(sequences), {}};
  std::future<absl::Status> done = pass.done.get_future();
  const absl::MutexLock lock(&mutex_);
  passes_.push_back(std::move(pass));
  return done;
}

void PrefillWorker::Run() {
  while (true) {
    Pass pass;
    {
      const auto is_due = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return ends_ || !passes_.empty();
      };
      const absl::MutexLock lock(&mutex_, absl::Condition(&is_due));
      if (passes_.empty()) return;
      pass = std::move(passes_.front());
      passes_.pop_front();
    }
    pass.done.set_value(Prefill(pass));
  }
}

absl::Status PrefillWorker::Prefill(const Pass& pass) {
  model::ForwardPass forward(llama_, workspace_);
  if (absl::Status s = forward.Begin(pass.sequences); !s.ok()) return s;
  for (int i = 0; i < llama_.config().num_layers; ++i) forward.RunLayer(i);
  return absl::OkStatus();
}

}  // namespace kdn::cli
