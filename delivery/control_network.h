#ifndef KDN_DELIVERY_CONTROL_NETWORK_H_
#define KDN_DELIVERY_CONTROL_NETWORK_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kv/ids.h"
#include "placement/member.h"

// The interfaces for the connections that carry the actor messages between
// nodes. The node calls ControlNetwork, which rpc/ implements.
namespace kdn::delivery {

// An open connection to the control port of a peer, or of a peer to ours. It
// never blocks. One thread at a time.
class ControlStream {
 public:
  virtual ~ControlStream() = default;
  // The socket, to wait on. The stream owns the descriptor.
  virtual int fd() const = 0;
  // The number of bytes read or written; 0: none now, wait for the socket. An
  // error says that the connection has ended, and why.
  virtual absl::StatusOr<size_t> Read(absl::Span<char> into) = 0;
  virtual absl::StatusOr<size_t> Write(absl::Span<const char> bytes) = 0;
  // Bytes that Read returns even when the socket has none.
  virtual size_t pending() const = 0;
  // The other side has introduced itself. The network hangs up on a peer that
  // does not do so in time.
  virtual void SetGreeted() = 0;
};

class ControlNetwork {
 public:
  virtual ~ControlNetwork() = default;
  using OnStream =
      absl::AnyInvocable<void(std::unique_ptr<ControlStream> stream)>;
  using OnDialled = absl::AnyInvocable<void(
      absl::StatusOr<std::unique_ptr<ControlStream>> stream)>;

  // Listens, and passes each connection that a peer opens to `on_stream`. Both
  // callbacks are called on a thread of the network and must not block.
  // Returns the port. ALREADY_EXISTS, INVALID_ARGUMENT or RESOURCE_EXHAUSTED,
  // naming the address, when the port cannot be opened. At most one call.
  virtual absl::StatusOr<uint16_t> Listen(const std::string& address,
                                          uint16_t port,
                                          OnStream on_stream) = 0;
  // Connects to the control port of `peer`. PERMISSION_DENIED when the peer
  // does not prove that it is `peer`; UNAVAILABLE when there is no connection
  // within `timeout`.
  virtual void Dial(const NodeId& peer, const placement::Addresses& addresses,
                    absl::Duration timeout, OnDialled on_dialled) = 0;
  // Closes the control port. No callback runs during or after this call, not
  // even that of a Dial under way. The callbacks of all earlier calls are
  // destroyed. May be called again, after calls of Dial, for these.
  virtual void Close() = 0;
};

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_CONTROL_NETWORK_H_
