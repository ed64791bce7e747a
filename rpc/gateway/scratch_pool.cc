#include "rpc/gateway/scratch_pool.h"

#include "absl/strings/str_cat.h"

namespace kdn::rpc {

kj::Promise<absl::StatusOr<std::shared_ptr<Scratch>>> ScratchPool::Acquire(
    size_t bytes, RequesterId requester) {
  using Result = absl::StatusOr<std::shared_ptr<Scratch>>;
  if (bytes > budget_->limit()) {
    return Result(absl::ResourceExhaustedError(absl::StrCat(
        "a chunk of ", bytes, " bytes is more than the gateway's ",
        budget_->limit(), " bytes for inline delivery: use shared memory")));
  }
  return budget_->Acquire(bytes, requester)
      .then([bytes](absl::StatusOr<ByteBudget::Pass> pass) -> Result {
        if (!pass.ok()) return pass.status();
        return std::make_shared<Scratch>(*std::move(pass), bytes);
      });
}

}  // namespace kdn::rpc
