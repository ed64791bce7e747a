#ifndef KDN_ACTORS_LOCAL_CALLS_H_
#define KDN_ACTORS_LOCAL_CALLS_H_

#include <caf/allowed_unsafe_message_type.hpp>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "delivery/control_network.h"
#include "delivery/fetch_session.h"
#include "delivery/node_service.h"
#include "delivery/peer_transport.h"
#include "kv/cancellation.h"
#include "kv/chunk_key.h"
#include "kv/ids.h"
#include "placement/member.h"
#include "placement/shard_map.h"
#include "storage/arena.h"
#include "storage/partition.h"
#include "transfer/admission_gate.h"
#include "transfer/calibration_shelf.h"

// Messages that stay inside one process. They hold callbacks and handles to
// memory, never the bytes themselves. CAF copies messages, so the handles are
// shared pointers. actors/messages.h says which actor understands which
// message.
namespace kdn::actors {

// A callback that answers exactly once. When the last copy goes without an
// answer (its actor died, or the message was lost), the callback gets
// UNAVAILABLE, so that no caller waits for ever.
template <typename T>
class Reply {
 public:
  static Reply To(delivery::Done<absl::StatusOr<T>> done) {
    return Reply(std::make_shared<State>(std::move(done)));
  }
  void operator()(absl::StatusOr<T> value) const {
    if (state_->done) std::exchange(state_->done, nullptr)(std::move(value));
  }

 private:
  struct State {
    explicit State(delivery::Done<absl::StatusOr<T>> done_in)
        : done(std::move(done_in)) {}
    ~State() {
      if (done) done(absl::UnavailableError("the node is stopping"));
    }
    delivery::Done<absl::StatusOr<T>> done;
  };
  explicit Reply(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

// Asks for a block to build or receive an object in.
struct ReserveCall {
  size_t bytes = 0;
  absl::Time deadline;
  Reply<std::shared_ptr<storage::ArenaBlock>> reply;
  // Withdraws the call when the caller gives up. Null: the caller never does.
  std::shared_ptr<Cancellation> cancellation = nullptr;
};

// The caller of a ReserveCall has given up.
struct WithdrawCall {
  storage::RequestId reservation;
};

// Makes a complete object visible in the partition.
struct CommitCall {
  storage::ObjectInfo info;
  std::shared_ptr<storage::ArenaBlock> block;
  Durability durability = Durability::kReplicated;
  absl::Time expires;  // end of the TTL; InfinitePast: no TTL
  absl::Time deadline;
  Reply<delivery::PushReceipt> reply;
};

// Reads an object, from the disk if it is not in memory. NOT_FOUND is a miss.
struct ReadCall {
  ChunkKey key;
  std::string ns;
  absl::Time deadline;
  Reply<delivery::PeerService::Held> reply;
};

// Drops an object that was found damaged, if it still has this version.
struct DiscardCall {
  ChunkKey key;
  ObjectVersion version;
};

// The disk tier has ended a request, and holds neither its callback nor its
// memory any more.
struct DiskAnswer {
  enum class Kind { kWritten, kRead, kRemoved, kHeld, kAmended };
  Kind kind = Kind::kWritten;
  ChunkKey key;
  absl::Status status;
};

// The disk tier has dropped an object, to make room or because its record is
// damaged.
struct DiskEviction {
  ChunkKey key;
  ObjectVersion version;
};

// A peer begins to send a chunk, which takes so many bytes of memory. Before,
// the retrieve's window counted the chunk at its largest possible size.
struct HitSize {
  int chunk = 0;
  uint64_t bytes = 0;
};

// The try to get one chunk from one node has ended.
struct AttemptEnd {
  int chunk = 0;
  NodeId node;
  delivery::AttemptResult result;
};

// The memory that a retrieve may fetch from peers into, or why there is none.
struct WindowGrant {
  absl::StatusOr<transfer::AdmissionGate::Pass> pass =
      absl::UnknownError("no answer yet");
};

// A node has taken a copy of the object, or `result` says why not.
struct SendEnd {
  NodeId node;
  absl::StatusOr<delivery::PushReceipt> result =
      absl::UnknownError("no answer yet");
};

// Asks for a connection to the control port of a peer.
struct DialCall {
  NodeId peer;
  placement::Addresses addresses;
};

// The placement actor has published another view.
struct ViewChanged {};

// A calibration to keep here and on the other nodes.
struct StoreCalibrationCall {
  std::shared_ptr<std::vector<std::byte>> bytes;
  absl::Time deadline;
  Reply<CalibrationReceipt> reply;
};

// An object needs a calibration that this node lacks. The reply's value means
// nothing.
struct NeedCalibrationCall {
  codec::CalibrationId id;
  absl::Time deadline;
  Reply<bool> reply;
};

struct ListCalibrationsCall {
  Reply<std::vector<CalibrationEntry>> reply;
};

// The worker pool has tried to keep a calibration. `call` waits for it: 0 if it
// came from a peer.
struct CalibrationKept {
  codec::CalibrationId id;  // as asked for; unset for a call
  uint64_t call = 0;
  absl::StatusOr<transfer::CalibrationShelf::Entry> kept =
      absl::UnknownError("not tried yet");
};

// A dial has ended.
struct DialEnd {
  using Result = absl::StatusOr<std::unique_ptr<delivery::ControlStream>>;
  uint64_t dial = 0;
  std::shared_ptr<Result> stream;
};

// The new member list.
struct MembersCall {
  std::vector<placement::MemberSpec> members;
};

// The shard map that the worker pool has built for the placement actor.
struct MapBuilt {
  std::shared_ptr<const placement::ShardMap> map;
};

}  // namespace kdn::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::DialCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::DialEnd)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::ViewChanged)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::StoreCalibrationCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::NeedCalibrationCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::ListCalibrationsCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::CalibrationKept)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::MembersCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::MapBuilt)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::ReserveCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::WithdrawCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::CommitCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::ReadCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::DiscardCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::DiskAnswer)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::DiskEviction)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::AttemptEnd)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::HitSize)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::WindowGrant)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::SendEnd)

#endif  // KDN_ACTORS_LOCAL_CALLS_H_
