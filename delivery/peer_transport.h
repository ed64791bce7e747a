#ifndef KDN_DELIVERY_PEER_TRANSPORT_H_
#define KDN_DELIVERY_PEER_TRANSPORT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "codec/format/object.h"
#include "delivery/node_service.h"
#include "delivery/rate_control.h"
#include "kv/chunk_key.h"
#include "kv/ids.h"
#include "kv/kv_view.h"
#include "kv/level.h"
#include "kv/work_class.h"
#include "storage/arena.h"
#include "storage/partition.h"

// Encoded objects between nodes: the bytes plane as the node sees it (rpc/
// implements PeerTransport) and the node as the bytes plane sees it (actors/
// implements PeerService).
namespace kdn::delivery {

// A peer refuses to be asked for more chunks than this in one fetch.
inline constexpr int kItemsPerFetchMax = 1024;

struct FetchRequest {
  NodeId peer;
  Namespace ns;
  std::vector<ChunkRef> chunks;  // at most kItemsPerFetchMax
  KvSlice slice;
  LevelSet accept;
  absl::Time deadline;
  SendBudget budget = {.bytes_max = SendBudget::kNoLimit};
  RequesterId requester{};  // requesters take turns where connections are short
};

// Receives one fetch. Called on the transport's thread, one call at a time, so
// nothing here may block. Destroyed after OnDone.
class FetchSink {
 public:
  virtual ~FetchSink() = default;
  // The peer holds chunk `i` and will send `stream_bytes`: the slice's layers
  // in order, each at its level as ObjectIndex::LayerRanges. Returns where they
  // go (stream_bytes long, valid until OnLayer took its last layer, or
  // OnDone), or an error to have the chunk skipped.
  virtual absl::StatusOr<absl::Span<std::byte>> OnHit(
      int i, codec::ObjectIndex index, std::vector<Level> levels, Tier tier,
      uint64_t stream_bytes) = 0;
  // The peer holds it, and sends nothing: the budget is not for it.
  virtual void OnRecompute(int i) = 0;
  // NOT_FOUND is a miss; anything else the peer's failure to read it. `version`
  // is of a copy that makes no sense; zero where there is none.
  virtual void OnNoHit(int i, const absl::Status& why,
                       ObjectVersion version) = 0;
  // The streams of one layer (counted from the slice's first) of chunk `i` are
  // in place, not yet verified. Layer-major over the fetch's chunks.
  virtual void OnLayer(int i, int layer,
                       absl::Span<const std::byte> streams) = 0;
  // Last call. Not OK when the connection broke, the peer spoke nonsense
  // (DATA_LOSS), or the deadline passed: chunks that have not had all their
  // layers are then to be had elsewhere.
  virtual void OnDone(const absl::Status& status) = 0;
};

struct PushRequest {
  NodeId peer;
  ChunkRef ref;
  storage::ObjectRef object;
  Durability durability = Durability::kReplicated;
  absl::Time expires;  // TTL; InfinitePast: none
  absl::Time deadline;
  WorkClass work_class = WorkClass::kWrite;  // never kRead
  RequesterId requester{};
};

struct PushReceipt {
  ObjectVersion version;  // of the object the peer now shows
  bool existed = false;
};

// Names one fetch of a transport, for ever.
using FetchId = StrongInt<struct FetchIdTag, uint64_t>;

// Thread-safe; calls return at once; callbacks run by the deadline.
class PeerTransport {
 public:
  virtual ~PeerTransport() = default;
  virtual FetchId Fetch(FetchRequest request,
                        std::unique_ptr<FetchSink> sink) = 0;
  // Nobody wants the rest of the fetch: it ends with CANCELLED as soon as it
  // can, and the peer stops sending. No effect when the fetch has ended.
  virtual void CancelFetch(FetchId fetch) = 0;
  virtual void Push(PushRequest request,
                    Done<absl::StatusOr<PushReceipt>> done) = 0;
  // The peer is known dead: its pending calls fail with UNAVAILABLE now instead
  // of at their deadlines.
  virtual void FailPeer(const NodeId& peer) = 0;
};

// What the transport's serving side asks of its node. Thread-safe; every call
// returns at once and done runs exactly once, by the deadline.
class PeerService {
 public:
  struct Held {
    storage::ObjectInfo info;
    storage::ObjectRef object;
  };
  virtual ~PeerService() = default;
  // NOT_FOUND is a miss.
  virtual void ReadLocal(const ChunkRef& ref, const Namespace& ns,
                         absl::Time deadline,
                         Done<absl::StatusOr<Held>> done) = 0;
  // Room for an object about to arrive. RESOURCE_EXHAUSTED.
  virtual void ReserveLocal(
      const ChunkRef& ref, size_t bytes, absl::Time deadline,
      Done<absl::StatusOr<std::shared_ptr<storage::ArenaBlock>>> done) = 0;
  // Verifies the object (header, identity against `ref`, every stream) and
  // makes it visible. DATA_LOSS when it is damaged: nothing changed.
  virtual void CommitLocal(const ChunkRef& ref,
                           std::shared_ptr<storage::ArenaBlock> block,
                           Durability durability, absl::Time expires,
                           absl::Time deadline,
                           Done<absl::StatusOr<PushReceipt>> done) = 0;
};

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_PEER_TRANSPORT_H_
