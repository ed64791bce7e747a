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

// The interfaces for moving encoded objects between nodes. The node calls
// PeerTransport, which rpc/ implements. The transport's serving side calls
// PeerService, which actors/ implements.
namespace kdn::delivery {

// The most chunks of one fetch: a peer refuses a larger fetch.
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
  // The fetch has got one of the transport's connections to the peer, or the
  // right to dial one: from here on, a silence is the peer's fault. First call.
  // There is no such call when the fetch ends while it still waits for a
  // connection.
  virtual void OnBegin() = 0;
  // The peer holds chunk `i` and sends `stream_bytes`: the slice's layers in
  // order, each at its level as ObjectIndex::LayerRanges says. Returns the
  // memory for them, which is stream_bytes long and valid until OnLayer got the
  // chunk's last layer, or until OnDone. An error skips the chunk.
  virtual absl::StatusOr<absl::Span<std::byte>> OnHit(
      int i, codec::ObjectIndex index, std::vector<Level> levels, Tier tier,
      uint64_t stream_bytes) = 0;
  // The peer holds the chunk but does not send it: recomputing is faster, or
  // there is no time to send it.
  virtual void OnRecompute(int i) = 0;
  // The peer does not send the chunk. NOT_FOUND is a miss; any other error says
  // why the peer failed to read the chunk. `version` is that of a damaged copy
  // at the peer. Zero: the peer found no damaged copy.
  virtual void OnNoHit(int i, const absl::Status& why,
                       ObjectVersion version) = 0;
  // The streams of one layer of chunk `i` are in place, but not yet verified.
  // `layer` counts from the slice's first layer. Of the chunks that a peer
  // sends together, layer 0 of all comes first, then layer 1, and so on.
  virtual void OnLayer(int i, int layer,
                       absl::Span<const std::byte> streams) = 0;
  // Last call. Not OK when the connection broke, when the peer's bytes make no
  // sense (DATA_LOSS), when an object has a format that this node does not read
  // (UNIMPLEMENTED), when the deadline passed, or after CancelFetch. The caller
  // then has to fetch the incomplete chunks from another node.
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
  // Requesters take turns where connections are short. Unset: copies that other
  // nodes asked for, which share one turn.
  RequesterId requester{};
};

struct PushReceipt {
  ObjectVersion version;  // of the object the peer now shows
  bool existed = false;
};

// Names one fetch of a transport. A transport uses each id once.
using FetchId = StrongInt<struct FetchIdTag, uint64_t>;

// Thread-safe. Calls return at once; callbacks run by the deadline.
class PeerTransport {
 public:
  virtual ~PeerTransport() = default;
  virtual FetchId Fetch(FetchRequest request,
                        std::unique_ptr<FetchSink> sink) = 0;
  // Ends the fetch with CANCELLED as soon as possible, and the peer stops
  // sending. No effect when the fetch has ended.
  virtual void CancelFetch(FetchId fetch) = 0;
  virtual void Push(PushRequest request,
                    Done<absl::StatusOr<PushReceipt>> done) = 0;
  // Gets the bytes of a calibration's file from the peer, at most `bytes_max`.
  // They are not verified. NOT_FOUND when the peer does not have the
  // calibration; RESOURCE_EXHAUSTED when it has more than `bytes_max` bytes.
  virtual void FetchCalibration(
      const NodeId& peer, const codec::CalibrationId& id, uint64_t bytes_max,
      absl::Time deadline,
      Done<absl::StatusOr<std::vector<std::byte>>> done) = 0;
  // The peer is dead: the pending calls to the peer fail with UNAVAILABLE at
  // once and not at their deadlines.
  virtual void FailPeer(const NodeId& peer) = 0;
};

// What the transport's serving side calls at its node. Thread-safe. Every call
// returns at once, and `done` runs exactly once, by the deadline.
class PeerService {
 public:
  struct Held {
    storage::ObjectInfo info;
    storage::ObjectRef object;
  };
  virtual ~PeerService() = default;
  // The bytes of a calibration's file. NOT_FOUND when this node does not have
  // the calibration.
  using FileBytes = std::shared_ptr<const std::vector<std::byte>>;
  virtual void ReadCalibration(const codec::CalibrationId& id,
                               Done<absl::StatusOr<FileBytes>> done) = 0;
  // NOT_FOUND is a miss.
  virtual void ReadLocal(const ChunkRef& ref, const Namespace& ns,
                         absl::Time deadline,
                         Done<absl::StatusOr<Held>> done) = 0;
  // Memory for an object that is about to arrive. RESOURCE_EXHAUSTED when there
  // is none by the deadline.
  virtual void ReserveLocal(
      const ChunkRef& ref, size_t bytes, absl::Time deadline,
      Done<absl::StatusOr<std::shared_ptr<storage::ArenaBlock>>> done) = 0;
  // Verifies the object (the header, that it is the chunk `ref`, every stream)
  // and makes it visible. DATA_LOSS when the object is damaged; nothing changes
  // then.
  virtual void CommitLocal(const ChunkRef& ref,
                           std::shared_ptr<storage::ArenaBlock> block,
                           Durability durability, absl::Time expires,
                           absl::Time deadline,
                           Done<absl::StatusOr<PushReceipt>> done) = 0;
};

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_PEER_TRANSPORT_H_
