#ifndef KDN_RPC_BULK_PUSH_ROOM_H_
#define KDN_RPC_BULK_PUSH_ROOM_H_

#include <kj/async.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>

#include "kv/work_class.h"

namespace kdn::rpc {

// A budget of bytes for pushes whose memory is taken and whose bytes have not
// come. One peer may have at most half of the budget, so a peer that sends
// nothing does not keep out others. A push gives room back as its bytes come.
//
// Order: the first request that fits is granted. A request that does not fit
// lets others overtake it, until these have taken as much as the whole budget.
// A request that waits only for room of its own peer holds up no other peer.
// Loop thread only; owned by shared_ptrs.
class PushRoom : public std::enable_shared_from_this<PushRoom> {
 public:
  // The room of one push. Its destructor gives the room back.
  class Pass {
   public:
    Pass(std::shared_ptr<PushRoom> room, RequesterId peer, uint64_t bytes)
        : room_(std::move(room)), peer_(peer), bytes_(bytes) {}
    ~Pass() { Shrink(0); }
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;
    // Keeps at most `bytes`, and gives the rest back.
    void Shrink(uint64_t bytes);

   private:
    const std::shared_ptr<PushRoom> room_;
    const RequesterId peer_;
    uint64_t bytes_;
  };

  explicit PushRoom(uint64_t limit) : limit_(limit) {}

  // A push of more bytes than one peer may have takes as much as that. Dropping
  // the promise withdraws the request.
  kj::Promise<std::unique_ptr<Pass>> Acquire(uint64_t bytes, RequesterId peer);
  uint64_t used() const { return used_; }
  uint64_t limit_of_peer() const { return std::max<uint64_t>(limit_ / 2, 1); }

 private:
  struct Request {
    uint64_t bytes = 0;
    RequesterId peer;
    uint64_t overtaken = 0;  // bytes that later requests took before this one
    kj::Own<kj::PromiseFulfiller<std::unique_ptr<Pass>>> fulfiller;
  };
  void GiveBack(RequesterId peer, uint64_t bytes);
  // Grants the requests that fit.
  void Serve();
  bool FitsPeer(const Request& request) const;
  void Grant(Request& request);

  const uint64_t limit_;
  uint64_t used_ = 0;
  std::map<RequesterId, uint64_t> used_by_;
  std::map<uint64_t, Request> waiting_;  // by number: the oldest first
  uint64_t next_ = 0;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_BULK_PUSH_ROOM_H_
