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
// Calls block. Only the thread that made an object may use it (checked). All
// clients of a thread share the event loop of that thread: a call needs no
// other thread, and all clients and stores of the thread make progress while
// one of them waits. Every call ends with a status by its timeout, or 0.1 s
// later when the gateway does not answer. When a connection has broken, all
// further calls on it are UNAVAILABLE: connect again. The library throws no
// exceptions.
namespace kdn::rpc {

class Connection;  // internal: one connection and its session

// Memory for KV views. The gateway maps a shared region too, so KV that is
// stored from it or delivered into it passes no socket. A region that is not
// shared is memory of this process only, and its KV passes the socket.
// Destroying a region gives it back (the gateway learns of it with this
// thread's next call) and leaves views into it dangling.
class Region {
 public:
  virtual ~Region() = default;
  virtual bool shared() const = 0;
  virtual std::byte* data() const = 0;
  virtual size_t size() const = 0;
};

// A store of one chunk, layer by layer. Destroying the stream before Commit
// abandons the store.
class StoreStream {
 public:
  virtual ~StoreStream() = default;
  // Sends the next layer: a view of exactly one layer with all KV heads. May
  // return before the gateway has read the layer. Over a socket the bytes have
  // been copied by then; in a Region they must not change until Commit returns.
  // INVALID_ARGUMENT for another shape, or a view outside the stream's Region.
  virtual absl::Status PutLayer(const KvView& layer) = 0;
  virtual absl::StatusOr<StoreReceipt> Commit() = 0;
};

// A store that makes progress while its thread waits for any call of this
// library. Destroying it abandons the store, unless the commit has been sent.
class PendingStore {
 public:
  virtual ~PendingStore() = default;
  // Waits for the receipt or the error of the store. Call once.
  virtual absl::StatusOr<StoreReceipt> Await() = 0;
};

// The chunks of one tenant and one model. Keeps the client's connection open.
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
  // Begins the same store and does not wait for it. For throughput, keep
  // several in flight, at most NodeInfo::stores_in_flight_max. `kv` must not
  // change until Await returns or the PendingStore is destroyed.
  virtual std::unique_ptr<PendingStore> StoreAsync(
      const StoreSpec& spec, const KvView& kv,
      absl::Duration timeout = kDefaultTimeout) = 0;
  // With a shared `region`, every layer must lie in it. The timeout covers
  // everything from this call to the end of Commit.
  virtual absl::StatusOr<std::unique_ptr<StoreStream>> BeginStore(
      const StoreSpec& spec, absl::Duration timeout = kDefaultTimeout,
      const Region* region = nullptr) = 0;

  // on_layer(chunk, layer): this layer, counted from the slice's first, is in
  // its destination. The layers of one chunk come in order. Called inside
  // Retrieve; must not call this library. Do not use the layers of a chunk
  // whose outcome is not a hit.
  using OnLayer = std::function<void(int chunk, int layer)>;
  // Fills the destinations: through shared memory when all of them lie in one
  // shared Region of this connection, else over the socket. One outcome per
  // chunk, in order.
  virtual absl::StatusOr<std::vector<ChunkOutcome>> Retrieve(
      const RetrieveSpec& spec, OnLayer on_layer = nullptr,
      absl::Duration timeout = kDefaultTimeout) = 0;

  // Pin, Unpin and Remove give one status per chunk, in order; kdn.capnp says
  // what each code means. A pin ends after `ttl`, or with the client's session.
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
  // For an address that begins with tls://: the PEM file of the authorities
  // that the client trusts. Empty: the file that KDN_CA names in the
  // environment.
  std::string ca = "";
};

class Client {
 public:
  // `address` is "unix:/path/to/socket", "host:port" or "[IPv6]:port"; "tls://"
  // before one of the last two dials a gateway that uses TLS, whose certificate
  // must name the host.
  // UNAVAILABLE when nobody listens, PERMISSION_DENIED when this user may not
  // open the socket, FAILED_PRECONDITION when the gateway speaks another
  // version or hashes tokens differently, or when the handshake of TLS failed.
  // Errors of the file of authorities name it.
  static absl::StatusOr<std::unique_ptr<Client>> Connect(
      std::string_view address, ConnectOptions options = {});
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  const NodeInfo& node() const;
  SessionId session() const;
  // False once the connection has broken.
  bool connected() const;
  // False once the client knows that regions of this connection cannot be
  // shared.
  bool shares_memory() const;

  absl::StatusOr<std::unique_ptr<Knowledge>> Open(
      const Namespace& ns, const ModelSpec& model,
      absl::Duration timeout = kDefaultTimeout);
  // A region that is shared if possible. Sharing is not possible over TCP, with
  // a gateway in another container, or where passing a descriptor is refused.
  // The client finds this out once per connection, logs the reason, and gives
  // regions of this process's own memory from then on. RESOURCE_EXHAUSTED when
  // the budget of the gateway is used up.
  absl::StatusOr<std::unique_ptr<Region>> OpenMemory(
      size_t bytes, absl::Duration timeout = kDefaultTimeout);
  // Makes an empty call to the gateway.
  absl::Status Ping(absl::Duration timeout = kDefaultTimeout);
  absl::StatusOr<std::vector<NodeStatus>> Status(
      absl::Duration timeout = kDefaultTimeout);

  // Stores the file of a calibration in the cluster; kdn.capnp,
  // CalibrationUpload, says what each code means. UNIMPLEMENTED when the node
  // is too old.
  absl::StatusOr<CalibrationReceipt> StoreCalibration(
      absl::Span<const std::byte> file,
      absl::Duration timeout = absl::Seconds(60));
  // The calibrations of the cluster. Of one model, the calibration that codes
  // new chunks comes first. UNIMPLEMENTED when the node is too old.
  absl::StatusOr<std::vector<CalibrationEntry>> Calibrations(
      absl::Duration timeout = kDefaultTimeout);
  // Whether the node knows the two calls above.
  bool KeepsCalibrations() const;

 private:
  explicit Client(std::shared_ptr<Connection> connection);
  absl::Status CheckKeepsCalibrations() const;
  std::shared_ptr<Connection> connection_;
};

}  // namespace kdn::rpc

namespace kdn {
using rpc::Client;
}  // namespace kdn

#endif  // KDN_RPC_CLIENT_CLIENT_H_
