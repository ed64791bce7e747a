#ifndef KDN_RPC_BULK_POOL_H_
#define KDN_RPC_BULK_POOL_H_

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "rpc/bulk/client.h"
#include "rpc/event_loop.h"

namespace kdn::rpc {

// The connections of one BulkTransport to one peer. Invariant: idle connections
// and living Leases together are never more than connections_per_peer_max. Loop
// thread only; lives behind a shared_ptr.
class BulkPool : public std::enable_shared_from_this<BulkPool> {
 public:
  BulkPool(EventLoop& loop, const BulkTransport::Options& options, NodeId peer)
      : loop_(loop), options_(options), peer_(std::move(peer)) {}

  // The right to one connection. The connection goes back to the pool only if
  // it was declared clean, else it is closed.
  class Lease {
   public:
    explicit Lease(std::shared_ptr<BulkPool> pool) : pool_(std::move(pool)) {}
    ~Lease() {
      if (!clean_) stream_ = nullptr;
      pool_->TakeBack(kj::mv(stream_));
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    kj::AsyncIoStream& stream() { return *stream_; }
    // The dialogue on it is over and both sides know.
    void set_clean() { clean_ = true; }

   private:
    friend class BulkPool;
    std::shared_ptr<BulkPool> pool_;
    kj::Own<kj::AsyncIoStream> stream_;
    bool clean_ = false;
  };

  // A connection that has said hello. Waits when all are taken; fails as an
  // exception when there is none to be had.
  kj::Promise<kj::Own<Lease>> Acquire();
  // Those that gave up in the meantime do not count.
  int waiting();
  void CloseIdle();

 private:
  // The lease's own connection if it still stands, else a new one.
  kj::Promise<kj::Own<Lease>> Ready(kj::Own<Lease> lease);
  kj::Promise<void> Greet(kj::AsyncIoStream& stream);
  void TakeBack(kj::Own<kj::AsyncIoStream> stream);

  EventLoop& loop_;
  const BulkTransport::Options& options_;
  const NodeId peer_;
  std::vector<kj::Own<kj::AsyncIoStream>> idle_;
  int leased_ = 0;
  // Given a lease, not a hint: one who gave up drops it, and the next gets it.
  std::deque<kj::Own<kj::PromiseFulfiller<kj::Own<Lease>>>> waiters_;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_BULK_POOL_H_
