#ifndef KDN_RPC_GATEWAY_GATEWAY_H_
#define KDN_RPC_GATEWAY_GATEWAY_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "delivery/node_service.h"
#include "kv/meters.h"

namespace kdn::rpc {

// Serves kdn.capnp to engines, over TCP and over a Unix socket, on one event
// loop thread of its own, in front of a NodeService. Thread-safe.
//
// Invariants: every call ends by its deadline even when the node never answers;
// memory handed to the node stays valid until the node is done with it, whoever
// hung up; the budgets below return to zero when the last client is gone.
class Gateway {
 public:
  struct Options {
    // Empty: no TCP. Port 0 of tcp_host: any free one, see tcp_port().
    std::string tcp_host = "127.0.0.1";
    uint16_t tcp_port = 0;
    // Empty: no Unix socket. A stale socket file is replaced, a live one is
    // ALREADY_EXISTS. Made with mode 0600: whoever may open it is trusted.
    // Beside it, its name with ".fd" behind: where clients fetch descriptors
    // that their Cap'n Proto library cannot receive.
    std::string unix_path;

    int sessions_max = 256;
    // Whoever has connected and not said hello by then is hung up on.
    absl::Duration hello_timeout = absl::Seconds(10);
    // A layer of an inline retrieve that an engine has not taken by then ends
    // the retrieve: others wait for the scratch it holds.
    absl::Duration engine_stall_max = absl::Seconds(10);
    uint64_t message_bytes_max = 256u << 20;
    // Bytes of calls being worked on per connection; more are not read.
    uint64_t call_bytes_max = 64u << 20;
    int chunks_per_call_max = 16384;
    // Shared memory, per session and in all.
    uint64_t session_memory_bytes_max = 4ull << 30;
    uint64_t memory_bytes_max = 8ull << 30;
    // Where inline retrieves are decoded before they are sent, in all.
    uint64_t scratch_bytes_max = 256u << 20;
    // Of that, one step of one inline retrieve; at least one chunk.
    uint64_t window_bytes = 16u << 20;
    int session_stores_max = 64;
    uint64_t session_store_bytes_max = 1ull << 30;
    // Calls are timed into it; the node reports it.
    std::shared_ptr<Meters> meters = std::make_shared<Meters>();
  };

  // What is in use now.
  struct Usage {
    uint64_t sessions = 0;
    uint64_t memory_bytes = 0;
    uint64_t scratch_bytes = 0;
    uint64_t store_bytes = 0;
    uint64_t node_calls = 0;  // asked of the node, not yet done
  };

  // ALREADY_EXISTS naming the address when something listens there already,
  // INVALID_ARGUMENT for an address that is none. `node` must outlive the
  // gateway and answer every call, late ones too.
  static absl::StatusOr<std::unique_ptr<Gateway>> Start(
      Options options, delivery::NodeService* node);
  virtual ~Gateway() = default;

  virtual uint16_t tcp_port() const = 0;
  virtual Usage usage() const = 0;
  // Hangs up on every client, waits until the node is done with the memory of
  // stores under way, joins the thread. Idempotent; the destructor does it too.
  virtual void Stop() = 0;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_GATEWAY_GATEWAY_H_
