#ifndef KDN_PLACEMENT_MEMBER_H_
#define KDN_PLACEMENT_MEMBER_H_

#include <cstdint>
#include <string>

#include "kv/ids.h"

namespace kdn::placement {

// Where a member is reached.
struct Addresses {
  std::string host;           // control and bulk listen there
  uint16_t control_port = 0;  // actors
  uint16_t bulk_port = 0;     // objects
  std::string gateway;        // "host:port" of the gateway, shown to people
  bool operator==(const Addresses&) const = default;
};

// One entry of the member list. The list comes from the configuration; every
// node of the cluster is to have the same.
struct MemberSpec {
  NodeId id;
  double weight = 1.0;  // share of the shards
  std::string zone;     // failure domain; empty: not named
  Addresses addresses;
  // The member is to be taken off the list soon. It owns its shards until then.
  bool leaving = false;
  bool operator==(const MemberSpec&) const = default;
};

// Names one attempt of a node to reach a peer. Later attempts have greater ids.
using DialId = StrongInt<struct DialIdTag, uint64_t>;

// Which life of a member a node talks to: another one after every loss. Counted
// by each node for itself. 0: the member has not been reached yet.
using Incarnation = StrongInt<struct IncarnationTag, uint64_t>;

enum class MemberState {
  kAway,     // does not answer
  kJoining,  // answers; the shard map in use does not have the member yet
  kServing,  // answers and owns shards
  kLeaving,  // as kServing, and MemberSpec::leaving
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
