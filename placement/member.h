#ifndef KDN_PLACEMENT_MEMBER_H_
#define KDN_PLACEMENT_MEMBER_H_

#include <cstdint>
#include <string>

#include "kv/ids.h"

namespace kdn::placement {

// Where a member listens.
struct Addresses {
  std::string host;           // of both ports below
  uint16_t control_port = 0;  // for actor messages
  uint16_t bulk_port = 0;     // for objects
  std::string gateway;        // "host:port" of the gateway, for the status call
  bool operator==(const Addresses&) const = default;
};

// One entry of the member list. The list comes from the configuration, and
// every node of the cluster should have the same list.
struct MemberSpec {
  NodeId id;
  double weight = 1.0;  // share of the shards, relative to other weights
  std::string zone;  // failure domain, which no decision uses yet; empty: none
  Addresses addresses;
  // The member will be taken off the list soon. It owns its shards until then.
  bool leaving = false;
  bool operator==(const MemberSpec&) const = default;
};

// Names one attempt of a node to reach a peer. Later attempts have larger ids.
using DialId = StrongInt<struct DialIdTag, uint64_t>;

// Names one connection of a node to a member: a new one after every loss. Each
// node counts for itself. 0: the member has not been reached yet.
using Incarnation = StrongInt<struct IncarnationTag, uint64_t>;

enum class MemberState {
  kAway,     // does not answer
  kJoining,  // answers, but is not in the shard map in use
  kServing,  // answers and owns shards
  kLeaving,  // as kServing, with MemberSpec::leaving set
};

// A member as one node sees it.
struct Member {
  MemberSpec spec;
  MemberState state = MemberState::kAway;
  Incarnation incarnation;
  bool operator==(const Member&) const = default;
};

}  // namespace kdn::placement

#endif  // KDN_PLACEMENT_MEMBER_H_
