#ifndef KDN_RPC_CLIENT_CLIENT_H_
#define KDN_RPC_CLIENT_CLIENT_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kv/chunk_key.h"
#include "kv/kv_view.h"
#include "kv/model_spec.h"
#include "rpc/api.h"

// The engine's side of kdn.capnp.
//
// Blocking and thread-confined: an object is used by the thread that made it
// (checked). All clients of a thread share that thread's event loop, so a call
// costs no hop to another thread, and several clients or stores in flight make
// progress while any one of them waits. Every call ends by its timeout (0.1 s
// later at the latest when the gateway is silent) with a typed status; a broken
// connection is UNAVAILABLE, for good: connect again. No exception gets out.
namespace kdn::rpc {

class Connection;  // internal: one connection and its session

// Memory for KV views. A shared region is mapped by the gateway too: what is
// stored from it or delivered into it passes no socket. The memory of a region
// that is not shared belongs to this process alone, and the KV passes the
// socket. A region is given back when it is destroyed (the gateway hears of it
// with this thread's next call); views into it are dangling then.
class Region {
 public:
  virtual ~Region() = default;
  virtual bool shared() const = 0;
  virtual std::byte* data() const = 0;
  virtual size_t size() const = 0;
};

// One chunk going in, layer by layer. Destroying it before Commit abandons it.
class StoreStream {
 public:
  virtual ~StoreStream() = default;
  // Sends the next layer: a view of exactly one layer, all KV heads, as it lies
  // in the engine. May return before the gateway has read it: over a socket the
  // bytes are copied out, in a Region they must stay until Commit returns.
  // INVALID_ARGUMENT for another shape or a view outside the stream's Region.
  virtual absl::Status PutLayer(const KvView& layer) = 0;
  virtual absl::StatusOr<StoreReceipt> Commit() = 0;
};

// A store that runs while its thread waits for anything in this library.
// Destroying it first abandons the store unless it was just being committed.
class PendingStore {
 public:
  virtual ~PendingStore() = default;
  // The receipt, or why not. Call once.
  virtual absl::StatusOr<StoreReceipt> Await() = 0;
};

// The chunks of one tenant and one model. Keeps its connection open.
class Knowledge {
 public:
  virtual ~Knowledge() = default;
  virtual const ModelSpec& model() const = 0;
  virtual const ModelFingerprint& fingerprint() const = 0;
  virtual const Namespace& ns() const = 0;

  virtual absl::StatusOr<std::vector<LookupResult>> Lookup(
      absl::Span<const ChunkRef> chunks,
      absl::Duration timeout = kDefaultTimeout) = 0;

  // Stores a whole chunk from `kv` (all layers, all KV heads, any strides).
  virtual absl::StatusOr<StoreReceipt> Store(
      const StoreSpec& spec, const KvView& kv,
      absl::Duration timeout = kDefaultTimeout) = 0;
  // The same, not waited for: keep a window of these in flight for throughput
  // (the gateway bounds it: NodeInfo::stores_in_flight_max). `kv` must stay as
  // it is until Await returns or the ticket is gone.
  virtual std::unique_ptr<PendingStore> StoreAsync(
      const StoreSpec& spec, const KvView& kv,
      absl::Duration timeout = kDefaultTimeout) = 0;
  // With a shared `region`, every layer must lie in it. The timeout covers
  // everything from here to the end of Commit.
  virtual absl::StatusOr<std::unique_ptr<StoreStream>> BeginStore(
      const StoreSpec& spec, absl::Duration timeout = kDefaultTimeout,
      const Region* region = nullptr) = 0;

  // on_layer(chunk, layer): that layer (from the slice's first) is in its
  // destination; those of one chunk in order. Runs inside Retrieve and must not
  // call this library. What it announced of a chunk whose outcome is not a hit
  // must not be used.
  using OnLayer = std::function<void(int chunk, int layer)>;
  // Fills the destinations: through shared memory when all of them lie in one
  // Region of this connection, else over the socket. One outcome per chunk.
  virtual absl::StatusOr<std::vector<ChunkOutcome>> Retrieve(
      const RetrieveSpec& spec, OnLayer on_layer = nullptr,
      absl::Duration timeout = kDefaultTimeout) = 0;

  // One status per chunk. A pin lasts `ttl` or until the client is gone.
  virtual absl::StatusOr<std::vector<absl::Status>> Pin(
      absl::Span<const ChunkRef> chunks, absl::Duration ttl,
      absl::Duration timeout = kDefaultTimeout) = 0;
  virtual absl::StatusOr<std::vector<absl::Status>> Unpin(
      absl::Span<const ChunkRef> chunks,
      absl::Duration timeout = kDefaultTimeout) = 0;
  virtual absl::StatusOr<std::vector<absl::Status>> Remove(
      absl::Span<const ChunkRef> chunks,
      absl::Duration timeout = kDefaultTimeout) = 0;
};

struct ConnectOptions {
  std::string name = "kdn-client";  // what the node's log calls this client
  absl::Duration timeout = absl::Seconds(2);
};

class Client {
 public:
  // `address` is "unix:/path/to/socket" or "host:port". UNAVAILABLE when nobody
  // listens, FAILED_PRECONDITION when the gateway speaks another version or
  // hashes tokens differently.
  static absl::StatusOr<std::unique_ptr<Client>> Connect(
      std::string_view address, ConnectOptions options = {});
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  const NodeInfo& node() const;
  SessionId session() const;
  // False once the connection broke.
  bool connected() const;
  // False once it is known that regions of this connection cannot be shared.
  bool shares_memory() const;

  absl::StatusOr<std::unique_ptr<Knowledge>> Open(
      const Namespace& ns, const ModelSpec& model,
      absl::Duration timeout = kDefaultTimeout);
  // A region that is shared where that is possible. It is not possible over
  // TCP, with a gateway in another container, or where a descriptor is refused.
  // The client finds out once per connection, remembers and logs the reason,
  // and gives regions of this process's own memory from then on.
  // RESOURCE_EXHAUSTED when the budget of the gateway is used up.
  absl::StatusOr<std::unique_ptr<Region>> OpenMemory(
      size_t bytes, absl::Duration timeout = kDefaultTimeout);
  // An empty call to the gateway and back.
  absl::Status Ping(absl::Duration timeout = kDefaultTimeout);
  absl::StatusOr<std::vector<NodeStatus>> Status(
      absl::Duration timeout = kDefaultTimeout);

 private:
  explicit Client(std::shared_ptr<Connection> connection);
  std::shared_ptr<Connection> connection_;
};

}  // namespace kdn::rpc

namespace kdn {
using rpc::Client;
}  // namespace kdn

#endif  // KDN_RPC_CLIENT_CLIENT_H_
