#include "rpc/bulk/push_room.h"

#include <utility>

namespace kdn::rpc {

void PushRoom::Pass::Shrink(uint64_t bytes) {
  if (bytes >= bytes_) return;
  const uint64_t returned = bytes_ - bytes;
  bytes_ = bytes;
  room_->GiveBack(peer_, returned);
}

kj::Promise<std::unique_ptr<PushRoom::Pass>> PushRoom::Acquire(
    uint64_t bytes, RequesterId peer) {
  auto paf = kj::newPromiseAndFulfiller<std::unique_ptr<Pass>>();
  const uint64_t number = next_++;
  Request& request = waiting_[number];
  request.bytes = std::min(bytes, limit_of_peer());
  request.peer = peer;
  request.fulfiller = kj::mv(paf.fulfiller);
  Serve();
  return paf.promise.attach(kj::defer([weak = weak_from_this(), number] {
    const std::shared_ptr<PushRoom> room = weak.lock();
    if (room != nullptr && room->waiting_.erase(number) > 0) room->Serve();
  }));
}

void PushRoom::GiveBack(RequesterId peer, uint64_t bytes) {
  used_ -= bytes;
  const auto of_peer = used_by_.find(peer);
  of_peer->second -= bytes;
  if (of_peer->second == 0) used_by_.erase(of_peer);
  Serve();
}

bool PushRoom::FitsPeer(const Request& request) const {
  const auto of_peer = used_by_.find(request.peer);
  const uint64_t used = of_peer == used_by_.end() ? 0 : of_peer->second;
  return used + request.bytes <= limit_of_peer();
}

void PushRoom::Grant(Request& request) {
  used_ += request.bytes;
  used_by_[request.peer] += request.bytes;
  request.fulfiller->fulfill(
      std::make_unique<Pass>(shared_from_this(), request.peer, request.bytes));
}

void PushRoom::Serve() {
  for (auto next = waiting_.begin(); next != waiting_.end();) {
    Request& request = next->second;
    if (!FitsPeer(request)) {
      ++next;
    } else if (used_ + request.bytes <= limit_) {
      for (auto passed = waiting_.begin(); passed != next; ++passed) {
        if (FitsPeer(passed->second)) passed->second.overtaken += request.bytes;
      }
      Grant(request);
      next = waiting_.erase(next);
    } else if (request.overtaken >= limit_) {
      return;
    } else {
      ++next;
    }
  }
}

}  // namespace kdn::rpc
