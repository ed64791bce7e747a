#ifndef KDN_RPC_CLIENT_STORE_H_
#define KDN_RPC_CLIENT_STORE_H_

#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include "absl/time/time.h"
#include "rpc/client/client.h"
#include "rpc/client/connection.h"

namespace kdn::rpc {

// One chunk on its way to the gateway: begin, a layer at a time, commit. All of
// it as promises, so that it can be waited for step by step (StoreStream) or
// run beside others (PendingStore). Lives on its connection's loop.
class Upload {
 public:
  // `region`: where every layer lies; null: they are sent inline.
  Upload(std::shared_ptr<Connection> connection,
         wire::Knowledge::Client knowledge, const KvShape& shape,
         const RegionImpl* region, absl::Duration timeout);

  kj::Promise<absl::Status> Begin(const StoreSpec& spec);
  // Resolves when the next layer may be sent: a few are on their way at a time.
  kj::Promise<void> SendLayer(const KvView& layer);
  kj::Promise<absl::StatusOr<StoreReceipt>> Commit();
  // All of it. `kv` must stay until it is resolved.
  kj::Promise<absl::StatusOr<StoreReceipt>> Run(const StoreSpec& spec,
                                                const KvView& kv);

  // INVALID_ARGUMENT unless `layer` is one layer of the chunk, in the region.
  absl::Status CheckLayer(const KvView& layer) const;
  Connection& connection() { return *connection_; }
  // What is left of the timeout, and the grace for the last answer.
  absl::Duration TimeLeft() const;

 private:
  kj::Promise<void> SendFrom(const KvView& kv, int layer);

  std::shared_ptr<Connection> connection_;
  wire::Knowledge::Client knowledge_;
  KvShape layer_shape_;
  const RegionImpl* region_;
  absl::Duration timeout_;
  absl::Time deadline_;
  std::optional<wire::StoreStream::Client> stream_;
  std::deque<kj::Promise<void>> unanswered_;
};

class StoreStreamImpl final : public StoreStream {
 public:
  explicit StoreStreamImpl(std::unique_ptr<Upload> upload)
      : upload_(std::move(upload)) {}
  ~StoreStreamImpl() noexcept override = default;
  absl::Status PutLayer(const KvView& layer) override;
  absl::StatusOr<StoreReceipt> Commit() override;

 private:
  std::unique_ptr<Upload> upload_;
};

class PendingStoreImpl final : public PendingStore {
 public:
  // A store that is refused before it began.
  explicit PendingStoreImpl(absl::Status refused)
      : refused_(std::move(refused)) {}
  PendingStoreImpl(std::unique_ptr<Upload> upload, const StoreSpec& spec,
                   const KvView& kv);
  ~PendingStoreImpl() noexcept override = default;
  absl::StatusOr<StoreReceipt> Await() override;

 private:
  absl::Status refused_;
  std::unique_ptr<Upload> upload_;
  std::optional<kj::Promise<absl::StatusOr<StoreReceipt>>> running_;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_CLIENT_STORE_H_
