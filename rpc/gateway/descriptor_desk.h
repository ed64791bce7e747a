#ifndef KDN_RPC_GATEWAY_DESCRIPTOR_DESK_H_
#define KDN_RPC_GATEWAY_DESCRIPTOR_DESK_H_

#include <map>
#include <memory>
#include <string>

#include "rpc/event_loop.h"

namespace kdn::rpc {

struct SharedRegion;

// Hands a region's descriptor to clients whose Cap'n Proto library cannot
// receive one: they connect to a Unix socket of its own, send a ticket that the
// region's capability gave them, and get the descriptor as ancillary data
// (SCM_RIGHTS) of one zero byte. Who brings no valid ticket is hung up on. Loop
// thread only.
class DescriptorDesk {
 public:
  static constexpr size_t kTicketBytes = 16;

  DescriptorDesk(EventLoop& loop, std::string path)
      : loop_(loop), path_(std::move(path)) {}
  const std::string& path() const { return path_; }

  // A ticket that works once, until the region is gone or it is withdrawn.
  std::string Issue(const std::shared_ptr<SharedRegion>& region);
  void Withdraw(const std::string& ticket) { tickets_.erase(ticket); }
  // One client's visit.
  kj::Promise<void> Serve(kj::Own<kj::AsyncIoStream> stream);

 private:
  kj::Promise<void> HandOver(kj::AsyncCapabilityStream& stream,
                             const std::string& ticket);

  EventLoop& loop_;
  const std::string path_;
  std::map<std::string, std::weak_ptr<SharedRegion>> tickets_;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_GATEWAY_DESCRIPTOR_DESK_H_
