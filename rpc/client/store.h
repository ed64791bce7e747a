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

// A store of one chunk at the gateway: begin, the layers in order, commit. Each
// step is a promise, so that a caller can wait for each step (StoreStream) or
// run the store beside others (PendingStore). Used on the connection's loop.
class Upload {
 public:
  // `region`: contains every layer; null: layers are sent in messages.
  Upload(std::shared_ptr<Connection> connection,
         wire::Knowledge::Client knowledge, const KvShape& shape,
         const RegionImpl* region, absl::Duration timeout);

  kj::Promise<absl::Status> Begin(const StoreSpec& spec);
  // Resolves when the next layers may be sent: a few calls are unanswered at a
  // time. REQUIRES: Begin was called; at most LayersPerCall() layers.
  kj::Promise<void> SendLayers(const KvView& layers);
  kj::Promise<absl::StatusOr<StoreReceipt>> Commit();
  // The whole store. `kv` must not change until the promise resolves.
  kj::Promise<absl::StatusOr<StoreReceipt>> Run(const StoreSpec& spec,
                                                const KvView& kv);

  // INVALID_ARGUMENT unless `layer` is one layer of the chunk and, if there is
  // a region, lies in it.
  absl::Status CheckLayer(const KvView& layer) const;
  Connection& connection() { return *connection_; }
  // The time that is left of the timeout, plus kAnswerGrace.
  absl::Duration TimeLeft() const;

 private:
  // The most layers in one call.
  int LayersPerCall() const;
  kj::Promise<void> SendFrom(const KvView& kv, int layer);
  kj::Promise<absl::StatusOr<StoreReceipt>> SendAndCommit(const KvView& kv);

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
  // A store that is refused before it begins.
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
