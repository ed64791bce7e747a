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
#include "rpc/listener.h"
#include "rpc/tls/credentials.h"

namespace kdn::rpc {

// Serves kdn.capnp to engines, over TCP and over a Unix socket. It asks a
// NodeService, and has one event loop thread of its own. Thread-safe.
//
// Invariants: every call ends by its deadline, even when the node never
// answers; only StoreStream.layer and a retrieve into a region wait for the
// node. Memory that the node may use stays valid until the node is done with
// it, also when the client has gone. The usage of every budget returns to zero
// when the last client has gone.
class Gateway {
 public:
  // Most connections beyond the sessions: of engines that have not said hello.
  static constexpr int kBesideSessions = 64;
  // Most processes that fetch the descriptor of a region at one time.
  static constexpr int kDeskVisitorsMax = 64;

  struct Options {
    // Empty: no TCP. Port 0: any free port, see tcp_port().
    std::string tcp_host = "127.0.0.1";
    uint16_t tcp_port = 0;
    // The certificate that clients over TCP see; they show none. Null: TCP is
    // plaintext. The Unix socket always is.
    std::shared_ptr<const TlsCredentials> tls = nullptr;
    // The path of the Unix socket; empty: none. Users who may open it are
    // trusted. A stale socket file is replaced;
    // ALREADY_EXISTS when a process listens on it. The gateway also makes
    // unix_path + ".fd", at which clients fetch descriptors that their Cap'n
    // Proto library cannot receive.
    std::string unix_path;
    SocketAccess unix_access;

    // 32 sessions (at most a quarter) are kept for clients over the Unix
    // socket, and as many for clients over TCP, if both may come.
    int sessions_max = 256;
    // Most connections from one address over TCP, and at most half of
    // sessions_max. When this, or the gateway, is full, a client that has
    // opened nothing makes room for a newcomer.
    int connections_per_address_max = 128;
    // A client that has not said hello for this long is disconnected. The
    // handshake of TLS is part of this time.
    absl::Duration hello_timeout = absl::Seconds(10);
    // An inline retrieve ends when the engine needs longer than this to take a
    // layer. engine_stall_contended_max counts while retrieves of other
    // sessions wait for scratch memory.
    absl::Duration engine_stall_max = absl::Seconds(10);
    absl::Duration engine_stall_contended_max = absl::Seconds(2);
    uint64_t message_bytes_max = 128u << 20;
    // Most bytes of messages of more than 64 KiB that are received and not yet
    // worked off, in all. Further messages wait for room. One message may take
    // more than a quarter, because one layer may be that large: 4096 tokens of
    // 32 KV heads of 128 values of 2 bytes have 64 MiB.
    uint64_t received_bytes_max = 192u << 20;
    // The same for messages of up to 64 KiB. The first 1 MiB of each connection
    // does not count.
    uint64_t small_received_bytes_max = 64u << 20;
    // A client whose message waits longer for room is disconnected.
    absl::Duration message_room_wait_max = absl::Seconds(30);
    // Most memory for the chunks that calls under way name, in all: four of the
    // largest calls. Further calls wait until their deadline. One session may
    // have a quarter. Calls of up to 64 KiB do not count: up to 256 KiB of them
    // per session.
    uint64_t call_memory_max = 160u << 20;
    // Most bytes that wait to be sent: to one client, beside the message that
    // is being sent, and in all. Beyond, the gateway hangs up.
    uint64_t queued_bytes_per_client_max = 64u << 20;
    uint64_t queued_bytes_max = 256u << 20;
    // A client that takes longer to send a part of a message (at most 1 MiB) is
    // disconnected. The second limit holds while other messages wait for room.
    absl::Duration message_stall_max = absl::Seconds(10);
    absl::Duration message_stall_contended_max = absl::Seconds(1);
    // Most bytes of unanswered calls per connection; further calls are not
    // read.
    uint64_t call_bytes_max = 64u << 20;
    // A call into shared memory ends when the client does not say for this long
    // which region it means.
    absl::Duration region_wait_max = absl::Seconds(5);
    int chunks_per_call_max = 16384;
    // Most positions of all chunks of a retrieve: as many chunks of 256 tokens.
    int positions_per_call_max = 16384 * 256;
    // Most shared memory, per session and in all.
    uint64_t session_memory_bytes_max = 4ull << 30;
    uint64_t memory_bytes_max = 8ull << 30;
    // Most regions of shared memory in all. Each takes one file descriptor of
    // the process.
    int regions_max = 4096;
    // Most scratch memory in all: inline retrieves are decoded into it before
    // they are sent.
    uint64_t scratch_bytes_max = 256u << 20;
    // Scratch memory of one window of an inline retrieve. A window has at least
    // one chunk, however large.
    uint64_t window_bytes = 16u << 20;
    // Most bytes of one calibration, and of all that clients are sending.
    uint64_t calibration_bytes_max = 256u << 20;
    int session_stores_max = 64;
    uint64_t session_store_bytes_max = 1ull << 30;
    // The times of calls are counted here; the node reports them.
    std::shared_ptr<Meters> meters = std::make_shared<Meters>();
  };

  // The present use of the budgets.
  struct Usage {
    uint64_t sessions = 0;
    uint64_t memory_bytes = 0;
    uint64_t scratch_bytes = 0;
    uint64_t store_bytes = 0;
    uint64_t node_calls = 0;  // calls that the node has not answered
    uint64_t connections = 0;
    uint64_t received_bytes = 0;
    uint64_t small_received_bytes = 0;
    uint64_t call_memory = 0;
    uint64_t queued_bytes = 0;  // to be sent; a tenth of a second old
  };

  // ALREADY_EXISTS, naming the address, when another process listens there.
  // INVALID_ARGUMENT for an address that is not one of this host. `node` must
  // outlive the gateway, and must answer every call, even after its deadline.
  static absl::StatusOr<std::unique_ptr<Gateway>> Start(
      Options options, delivery::NodeService* node);
  virtual ~Gateway() = default;

  virtual uint16_t tcp_port() const = 0;
  virtual Usage usage() const = 0;
  // Hangs up on every client, and waits until the node is done with the memory
  // of stores in progress. Idempotent; the destructor calls it.
  virtual void Stop() = 0;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_GATEWAY_GATEWAY_H_
