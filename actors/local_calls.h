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
#include "delivery/fetch_session.h"
#include "delivery/node_service.h"
#include "delivery/peer_transport.h"
#include "kv/chunk_key.h"
#include "kv/ids.h"
#include "placement/member.h"
#include "placement/shard_map.h"
#include "storage/arena.h"
#include "storage/partition.h"
#include "transfer/admission_gate.h"

// Messages that stay inside one process: they hold handles to memory and
// callbacks, never the bytes. CAF copies messages, hence the shared pointers.
namespace kdn::actors {

// A callback that answers exactly once. Dropped unanswered (its actor died, the
// message was lost), it answers by itself with an error, so that no caller
// hangs.
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

struct ReserveCall {
  size_t bytes = 0;
  absl::Time deadline;
  Reply<std::shared_ptr<storage::ArenaBlock>> reply;
};

struct CommitCall {
  storage::ObjectInfo info;
  std::shared_ptr<storage::ArenaBlock> block;
  Durability durability = Durability::kReplicated;
  absl::Time expires;
  absl::Time deadline;
  Reply<delivery::PushReceipt> reply;
};

struct ReadCall {
  ChunkKey key;
  std::string ns;
  absl::Time deadline;
  Reply<delivery::PeerService::Held> reply;
};

struct DiscardCall {
  ChunkKey key;
  ObjectVersion version;
};

struct DiskAnswer {
  enum class Kind { kWritten, kRead, kRemoved } kind = Kind::kWritten;
  ChunkKey key;
  absl::Status status;
};

struct DiskEviction {
  ChunkKey key;
  ObjectVersion version;
};

// How much of the window a chunk on its way really takes.
struct HitSize {
  int chunk = 0;
  uint64_t bytes = 0;
};

struct AttemptEnd {
  int chunk = 0;
  NodeId node;
  delivery::AttemptResult result;
};

// Memory for fetching from peers, or why there is none.
struct WindowGrant {
  absl::StatusOr<transfer::AdmissionGate::Pass> pass =
      absl::UnknownError("no answer yet");
};

struct SendEnd {
  NodeId node;
  absl::StatusOr<delivery::PushReceipt> result =
      absl::UnknownError("no answer yet");
};

// The member list is now this one.
struct MembersCall {
  std::vector<placement::MemberSpec> members;
};

// The map that the placement actor has had built.
struct MapBuilt {
  std::shared_ptr<const placement::ShardMap> map;
};

}  // namespace kdn::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::MembersCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::MapBuilt)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::ReserveCall)
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
