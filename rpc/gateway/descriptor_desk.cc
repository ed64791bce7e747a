#include "rpc/gateway/descriptor_desk.h"

#include <sys/random.h>

#include <utility>

#include "kv/check.h"
#include "rpc/gateway/session_state.h"

namespace kdn::rpc {
namespace {

// A client needs one round trip on one host.
constexpr auto kVisitMax = 2 * kj::SECONDS;

}  // namespace

std::string DescriptorDesk::Issue(const std::shared_ptr<SharedRegion>& region) {
  loop_.AssertOnLoop();
  std::string ticket(kTicketBytes, '\0');
  const ssize_t got = getrandom(ticket.data(), ticket.size(), 0);
  KDN_CHECK(got == static_cast<ssize_t>(kTicketBytes),
            "getrandom gives 16 bytes at once");
  tickets_[ticket] = region;
  return ticket;
}

kj::Promise<void> DescriptorDesk::Serve(kj::Own<kj::AsyncIoStream> stream) {
  auto& peer = kj::downcast<kj::AsyncCapabilityStream>(*stream);
  auto ticket = kj::heapArray<kj::byte>(kTicketBytes);
  auto reading = peer.read(ticket.begin(), ticket.size());
  return reading
      .then([this, &peer, ticket = kj::mv(ticket)] {
        return HandOver(peer, std::string(ticket.begin(), ticket.end()));
      })
      .exclusiveJoin(loop_.At(EventLoop::Now() + kVisitMax))
      .attach(kj::mv(stream));
}

kj::Promise<void> DescriptorDesk::HandOver(kj::AsyncCapabilityStream& stream,
                                           const std::string& ticket) {
  auto node = tickets_.extract(ticket);
  if (node.empty()) return kj::READY_NOW;
  const std::shared_ptr<SharedRegion> region = node.mapped().lock();
  if (region == nullptr) return kj::READY_NOW;
  auto sending = stream.sendFd(region->memory.fd());
  return sending.attach(kj::heap<std::shared_ptr<SharedRegion>>(region));
}

}  // namespace kdn::rpc
