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
#include "rpc/tls/context.h"

namespace kdn::rpc {

// The connections of one BulkTransport to one peer. An Admission decides which
// request gets a connection. Invariants: a class has at most its
// connections_per_peer_max of Leases; Leases and idle connections together are
// at most the sum of these. Loop thread only; owned by shared_ptrs.
class BulkPool : public std::enable_shared_from_this<BulkPool> {
 public:
  // `tls` is the context of all connections; null: they are plaintext.
  BulkPool(EventLoop& loop, const BulkTransport::Options& options, SSL_CTX* tls,
           NodeId peer);

  // The right to one connection. At its end, a clean connection goes back to
  // the pool; any other connection is closed.
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
    // REQUIRES: Connect has given the lease a connection.
    kj::AsyncIoStream& stream() { return *stream_; }
    // The request on the connection has ended, and both sides know it.
    void set_clean() { clean_ = true; }

   private:
    friend class BulkPool;
    std::shared_ptr<BulkPool> pool_;
    AdmissionId id_;
    kj::Own<kj::AsyncIoStream> stream_;
    bool clean_ = false;
  };

  // The right to one connection. Waits while all connections of the class are
  // in use; dropping the promise ends the wait. Fails with an OVERLOADED
  // exception when too many requests wait.
  kj::Promise<kj::Own<Lease>> Acquire(WorkClass work_class,
                                      RequesterId requester);
  // The lease with a connection that has said hello: its idle connection if
  // that is still open, else a new one. Fails with an exception when the peer
  // cannot be reached or a side refuses the hello.
  static kj::Promise<kj::Own<Lease>> Connect(kj::Own<Lease> lease);
  void CloseIdle();

 private:
  // Gives the lease a new connection.
  kj::Promise<kj::Own<Lease>> Dial(kj::Own<Lease> lease);
  // The connection under TLS, if this node uses TLS.
  kj::Promise<kj::Own<kj::AsyncIoStream>> Secure(
      kj::Own<kj::AsyncIoStream> stream);
  kj::Promise<void> Greet(kj::AsyncIoStream& stream);
  absl::Status Judge(peer::Hello::Reader answer) const;
  void TakeBack(AdmissionId id, kj::Own<kj::AsyncIoStream> stream);
  // Ends the wait of a request whose promise was dropped.
  void GiveUp(AdmissionId id);
  // Gives connections to the requests whose turn it is.
  void Serve();

  EventLoop& loop_;
  const BulkTransport::Options& options_;
  SSL_CTX* const tls_;
  const NodeId peer_;
  Admission admission_;
  uint64_t next_id_ = 0;
  std::vector<kj::Own<kj::AsyncIoStream>> idle_;
  std::unordered_map<uint64_t, kj::Own<kj::PromiseFulfiller<kj::Own<Lease>>>>
      waiters_;  // by AdmissionId
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_BULK_POOL_H_
