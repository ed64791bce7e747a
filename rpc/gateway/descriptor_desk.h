#ifndef KDN_RPC_GATEWAY_DESCRIPTOR_DESK_H_
#define KDN_RPC_GATEWAY_DESCRIPTOR_DESK_H_

#include <map>
#include <memory>
#include <string>

#include "rpc/event_loop.h"

namespace kdn::rpc {

struct SharedRegion;

// Gives the file descriptors of regions to clients whose Cap'n Proto library
// cannot receive descriptors. Such a client connects to the desk's Unix socket,
// sends a ticket that it got from the region's capability, and receives the
// descriptor as ancillary data (SCM_RIGHTS) of one zero byte. Without a valid
// ticket, the desk hangs up. Loop thread only.
class DescriptorDesk {
 public:
  static constexpr size_t kTicketBytes = 16;

  DescriptorDesk(EventLoop& loop, std::string path)
      : loop_(loop), path_(std::move(path)) {}
  const std::string& path() const { return path_; }

  // A new ticket for the region. It works once, and not after Withdraw or the
  // end of the region.
  std::string Issue(const std::shared_ptr<SharedRegion>& region);
  void Withdraw(const std::string& ticket) { tickets_.erase(ticket); }
  // Serves one connection of a client.
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
