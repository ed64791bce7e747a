#ifndef KDN_RPC_BULK_POOL_H_
#define KDN_RPC_BULK_POOL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kv/admission.h"
#include "rpc/bulk/client.h"
#include "rpc/event_loop.h"

namespace kdn::rpc {

// The connections of one BulkTransport to one peer: a shell around an Admission
// of connections. Invariant: the living Leases of a class are never more than
// its connections_per_peer_max, idle connections and Leases together never more
// than the sum. Loop thread only; lives behind a shared_ptr.
class BulkPool : public std::enable_shared_from_this<BulkPool> {
 public:
  BulkPool(EventLoop& loop, const BulkTransport::Options& options, NodeId peer);

  // The right to one connection. The connection goes back to the pool only if
  // it was declared clean, else it is closed.
  class Lease {
   public:
    Lease(std::shared_ptr<BulkPool> pool, AdmissionId id)
        : pool_(std::move(pool)), id_(id) {}
    ~Lease() {
      if (!clean_) stream_ = nullptr;
      pool_->TakeBack(id_, kj::mv(stream_));
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    kj::AsyncIoStream& stream() { return *stream_; }
    // The dialogue on it is over and both sides know.
    void set_clean() { clean_ = true; }

   private:
    friend class BulkPool;
    std::shared_ptr<BulkPool> pool_;
    AdmissionId id_;
    kj::Own<kj::AsyncIoStream> stream_;
    bool clean_ = false;
  };

  // A connection that has said hello. Waits while the class has all of its
  // connections; dropping the promise gives the request up. Fails as an
  // exception: OVERLOADED when too many wait, else when the peer cannot be
  // reached.
  kj::Promise<kj::Own<Lease>> Acquire(WorkClass work_class,
                                      RequesterId requester);
  void CloseIdle();

 private:
  // The lease's own connection if it still stands, else a new one.
  kj::Promise<kj::Own<Lease>> Ready(kj::Own<Lease> lease);
  kj::Promise<void> Greet(kj::AsyncIoStream& stream);
  absl::Status Judge(peer::Hello::Reader answer) const;
  void TakeBack(AdmissionId id, kj::Own<kj::AsyncIoStream> stream);
  void GiveUp(AdmissionId id);
  void Serve();

  EventLoop& loop_;
  const BulkTransport::Options& options_;
  const NodeId peer_;
  Admission admission_;
  uint64_t next_id_ = 0;
  std::vector<kj::Own<kj::AsyncIoStream>> idle_;
  std::unordered_map<uint64_t, kj::Own<kj::PromiseFulfiller<kj::Own<Lease>>>>
      waiters_;  // by AdmissionId
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_BULK_POOL_H_
