#ifndef KDN_RPC_CLIENT_KNOWLEDGE_H_
#define KDN_RPC_CLIENT_KNOWLEDGE_H_

#include <memory>
#include <utility>
#include <vector>

#include "rpc/client/client.h"
#include "rpc/client/connection.h"

namespace kdn::rpc {

class KnowledgeImpl final : public Knowledge {
 public:
  KnowledgeImpl(std::shared_ptr<Connection> connection,
                wire::Knowledge::Client capability, Namespace ns,
                ModelSpec model, const ModelFingerprint& fingerprint)
      : connection_(std::move(connection)),
        capability_(kj::mv(capability)),
        ns_(std::move(ns)),
        model_(std::move(model)),
        fingerprint_(fingerprint) {}
  ~KnowledgeImpl() noexcept override = default;

  const ModelSpec& model() const override { return model_; }
  const ModelFingerprint& fingerprint() const override { return fingerprint_; }
  const Namespace& ns() const override { return ns_; }

  absl::StatusOr<std::vector<LookupResult>> Lookup(
      absl::Span<const ChunkRef> chunks, absl::Duration timeout) override;
  absl::StatusOr<StoreReceipt> Store(const StoreSpec& spec, const KvView& kv,
                                     absl::Duration timeout) override;
  std::unique_ptr<PendingStore> StoreAsync(const StoreSpec& spec,
                                           const KvView& kv,
                                           absl::Duration timeout) override;
  absl::StatusOr<std::unique_ptr<StoreStream>> BeginStore(
      const StoreSpec& spec, absl::Duration timeout,
      const Region* region) override;
  absl::StatusOr<std::vector<ChunkOutcome>> Retrieve(
      const RetrieveSpec& spec, OnLayer on_layer,
      absl::Duration timeout) override;
  absl::StatusOr<std::vector<absl::Status>> Pin(
      absl::Span<const ChunkRef> chunks, absl::Duration ttl,
      absl::Duration timeout) override;
  absl::StatusOr<std::vector<absl::Status>> Unpin(
      absl::Span<const ChunkRef> chunks, absl::Duration timeout) override;
  absl::StatusOr<std::vector<absl::Status>> Remove(
      absl::Span<const ChunkRef> chunks, absl::Duration timeout) override;

 private:
  // OK when the chunk is of this model and tenant.
  absl::Status CheckStore(const StoreSpec& spec) const;
  // OK when `kv` is all KV of the chunk.
  absl::Status CheckWhole(const StoreSpec& spec, const KvView& kv) const;
  absl::Status CheckRetrieve(const RetrieveSpec& spec,
                             const KvSlice& slice) const;
  // The region that contains all destinations, or null.
  const RegionImpl* RegionOfAll(const RetrieveSpec& spec) const;
  template <typename Request>
  absl::StatusOr<std::vector<absl::Status>> CallForStatuses(
      Request request, absl::Span<const ChunkRef> chunks,
      absl::Duration timeout);

  std::shared_ptr<Connection> connection_;
  wire::Knowledge::Client capability_;
  Namespace ns_;
  ModelSpec model_;
  ModelFingerprint fingerprint_;
};

// Bytes from the base of a view to the end of its last element.
uint64_t ReachOf(const KvView& view);

}  // namespace kdn::rpc

#endif  // KDN_RPC_CLIENT_KNOWLEDGE_H_
