#ifndef KDN_ACTORS_MESSAGES_H_
#define KDN_ACTORS_MESSAGES_H_

#include <caf/all.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "actors/local_calls.h"
#include "delivery/lease_session.h"
#include "delivery/node_service.h"

// Every message of the system and who understands it. All of CAF 0.17's own
// spelling (type registration, inspect) is here, so that an upgrade touches
// this header and the shells only.

namespace kdn::actors {

// Keys travel as one run of 32-byte strings: CAF copies that in one piece.
struct LookupQuery {
  std::string ns;
  std::vector<char> keys;
};

struct LookupItem {
  bool hit = false;
  uint8_t tier = 0;
  uint8_t levels = 0;
  uint64_t bytes = 0;
  uint64_t version = 0;
};

using delivery::LeaseOp;

struct LeaseQuery {
  uint8_t op = 0;  // LeaseOp
  std::string ns;
  std::vector<char> keys;
  uint64_t session = 0;
  // From the moment the owner reads it: clocks are not compared between hosts.
  int64_t ttl_us = 0;
};

// absl::Status on the wire.
struct StatusItem {
  int32_t code = 0;
  std::string message;
};

// Send your copy of a chunk to another node.
struct CopyQuery {
  std::string ns;
  std::vector<char> ref;
  uint64_t version = 0;  // this one or none
  std::string to;
  uint8_t durability = 0;  // Durability
  // From the moment the holder reads it.
  int64_t ttl_us = 0;
  int64_t timeout_us = 0;
};

// delivery::PushReceipt on the wire.
struct CopyAnswer {
  StatusItem status;
  uint64_t version = 0;
  bool existed = false;
};

// What came from your copy of a chunk failed its checksum.
struct SuspectQuery {
  std::string ns;
  std::vector<char> ref;
  uint64_t version = 0;
};

// placement::Introduction on the wire.
struct IntroductionItem {
  std::string cluster;
  std::string node;
  uint32_t oldest_version = 0;
  uint32_t newest_version = 0;
  uint32_t replicas = 0;
  uint32_t shards = 0;
  double weight = 0;
  std::string zone;
  bool knows_peer = false;  // else the two fields below mean nothing
  double peer_weight = 0;
  std::string peer_zone;
};

// A node asks to join. The first message between two nodes.
struct JoinQuery {
  IntroductionItem introduction;
};

// What a node tells a peer that joins it.
struct PeerInfo {
  IntroductionItem introduction;
  // Its storage actors; shard s lives in storage[s % storage.size()].
  std::vector<caf::strong_actor_ptr> storage;
};

// MetricSample on the wire.
struct MetricItem {
  std::string name;
  uint8_t type = 0;    // MetricType
  uint64_t value = 0;  // of a histogram: the sum of its values
  // Of a histogram: for each bucket that is not empty its largest value and its
  // count.
  std::vector<uint64_t> buckets;
};

// NodeStatus on the wire. A metric that is 0 is left out.
struct NodeReport {
  std::string id;
  std::vector<MetricItem> metrics;
};

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, LookupQuery& q) {
  return f(caf::meta::type_name("LookupQuery"), q.ns, q.keys);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, LookupItem& i) {
  return f(caf::meta::type_name("LookupItem"), i.hit, i.tier, i.levels, i.bytes,
           i.version);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, LeaseQuery& q) {
  return f(caf::meta::type_name("LeaseQuery"), q.op, q.ns, q.keys, q.session,
           q.ttl_us);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, StatusItem& s) {
  return f(caf::meta::type_name("StatusItem"), s.code, s.message);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, CopyQuery& q) {
  return f(caf::meta::type_name("CopyQuery"), q.ns, q.ref, q.version, q.to,
           q.durability, q.ttl_us, q.timeout_us);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, CopyAnswer& a) {
  return f(caf::meta::type_name("CopyAnswer"), a.status, a.version, a.existed);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, SuspectQuery& q) {
  return f(caf::meta::type_name("SuspectQuery"), q.ns, q.ref, q.version);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, PeerInfo& p) {
  return f(caf::meta::type_name("PeerInfo"), p.introduction, p.storage);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, IntroductionItem& i) {
  return f(caf::meta::type_name("IntroductionItem"), i.cluster, i.node,
           i.oldest_version, i.newest_version, i.replicas, i.shards, i.weight,
           i.zone, i.knows_peer, i.peer_weight, i.peer_zone);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, JoinQuery& q) {
  return f(caf::meta::type_name("JoinQuery"), q.introduction);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, MetricItem& m) {
  return f(caf::meta::type_name("MetricItem"), m.name, m.type, m.value,
           m.buckets);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, NodeReport& r) {
  return f(caf::meta::type_name("NodeReport"), r.id, r.metrics);
}

}  // namespace kdn::actors

CAF_BEGIN_TYPE_ID_BLOCK(kdn, caf::first_custom_type_id)
CAF_ADD_TYPE_ID(kdn, (kdn::actors::LookupQuery))
CAF_ADD_TYPE_ID(kdn, (kdn::actors::LookupItem))
CAF_ADD_TYPE_ID(kdn, (std::vector<kdn::actors::LookupItem>))
CAF_ADD_TYPE_ID(kdn, (kdn::actors::LeaseQuery))
CAF_ADD_TYPE_ID(kdn, (kdn::actors::StatusItem))
CAF_ADD_TYPE_ID(kdn, (std::vector<kdn::actors::StatusItem>))
CAF_ADD_TYPE_ID(kdn, (kdn::actors::CopyQuery))
CAF_ADD_TYPE_ID(kdn, (kdn::actors::CopyAnswer))
CAF_ADD_TYPE_ID(kdn, (kdn::actors::SuspectQuery))
CAF_ADD_TYPE_ID(kdn, (kdn::actors::IntroductionItem))
CAF_ADD_TYPE_ID(kdn, (kdn::actors::JoinQuery))
CAF_ADD_TYPE_ID(kdn, (kdn::actors::PeerInfo))
CAF_ADD_TYPE_ID(kdn, (kdn::actors::MetricItem))
CAF_ADD_TYPE_ID(kdn, (std::vector<kdn::actors::MetricItem>))
CAF_ADD_TYPE_ID(kdn, (kdn::actors::NodeReport))
CAF_ADD_ATOM(kdn, kdn::actors, LookupAtom, "lookup")
CAF_ADD_ATOM(kdn, kdn::actors, LeaseAtom, "lease")
CAF_ADD_ATOM(kdn, kdn::actors, ReleaseAtom, "release")
CAF_ADD_ATOM(kdn, kdn::actors, CopyAtom, "copy")
CAF_ADD_ATOM(kdn, kdn::actors, SuspectAtom, "suspect")
CAF_ADD_ATOM(kdn, kdn::actors, CountAtom, "count")
CAF_ADD_ATOM(kdn, kdn::actors, FlushAtom, "flush")
CAF_ADD_ATOM(kdn, kdn::actors, TickAtom, "tick")
CAF_ADD_ATOM(kdn, kdn::actors, JoinAtom, "join")
CAF_ADD_ATOM(kdn, kdn::actors, ReportAtom, "report")
CAF_ADD_ATOM(kdn, kdn::actors, DeadlineAtom, "deadline")
CAF_ADD_ATOM(kdn, kdn::actors, CancelAtom, "cancel")
CAF_END_TYPE_ID_BLOCK(kdn)

namespace kdn::actors {

// Keeps one partition of a node's shards: storage::Partition and its disk.
using StorageActor = caf::typed_actor<
    // What is there, without reading it; one item per key.
    caf::replies_to<LookupAtom, LookupQuery>::with<std::vector<LookupItem>>,
    // Pin, unpin or remove; one status per key.
    caf::replies_to<LeaseAtom, LeaseQuery>::with<std::vector<StatusItem>>,
    // The session has ended: its leases go.
    caf::reacts_to<ReleaseAtom, uint64_t>,
    // The metrics of this partition; one that is 0 is left out.
    caf::replies_to<CountAtom>::with<std::vector<MetricItem>>,
    // Answered, with true, once nothing waits to be written to disk.
    caf::replies_to<FlushAtom>::with<bool>,
    // Inside the process only: calls with memory and callbacks in them.
    caf::reacts_to<ReserveCall>, caf::reacts_to<CommitCall>,
    caf::reacts_to<ReadCall>, caf::reacts_to<DiscardCall>,
    // The disk tier has answered, or dropped an object on its own.
    caf::reacts_to<DiskAnswer>, caf::reacts_to<DiskEviction>,
    // Time passes: deadlines, leases, requests waiting for room.
    caf::reacts_to<TickAtom>>;

// The one actor of a node that its peers dial.
using NodeActor = caf::typed_actor<
    // A peer (its name) is here; answered with what it needs to talk to us, or
    // with a refusal (RefusalIn).
    caf::replies_to<JoinAtom, JoinQuery>::with<PeerInfo>,
    caf::replies_to<ReportAtom>::with<NodeReport>,
    // A store lost against the object held here: hand that on.
    caf::replies_to<CopyAtom, CopyQuery>::with<CopyAnswer>,
    // Verify the object held here, and drop it if it is damaged.
    caf::reacts_to<SuspectAtom, SuspectQuery>,
    // Inside the process only. Time passes: who waits for passing memory.
    caf::reacts_to<TickAtom>>;

// Knows who is alive; publishes a ClusterView after every change.
using PlacementActor = caf::typed_actor<
    // Inside the process only.
    caf::reacts_to<MembersCall>, caf::reacts_to<MapBuilt>,
    // Time passes (number of the tick): peers are due to be dialled, maps to be
    // built.
    caf::reacts_to<TickAtom, uint64_t>>;

// One lookup, lease change or status call at all the nodes it concerns; gone
// when answered.
using QueryActor = caf::typed_actor<
    // Watches deadline and membership.
    caf::reacts_to<TickAtom>>;

// One retrieve: delivery::FetchSession. Gone when answered.
using RetrieveActor = caf::typed_actor<
    // The try of one chunk has ended.
    caf::reacts_to<AttemptEnd>, caf::reacts_to<HitSize>,
    // Peers may be asked, or there is no memory for it.
    caf::reacts_to<WindowGrant>,
    // The engine went away.
    caf::reacts_to<CancelAtom>, caf::reacts_to<DeadlineAtom>>;

// One store from its commit on: delivery::StoreSession. Gone when every copy is
// accounted for.
using StoreActor = caf::typed_actor<
    // A node has taken its copy, or not.
    caf::reacts_to<SendEnd>, caf::reacts_to<DeadlineAtom>>;

// One object on its way from this node to another. Gone when answered.
using CopyActor =
    caf::typed_actor<caf::replies_to<CopyAtom, CopyQuery>::with<CopyAnswer>,
                     // The other node has taken it, or not.
                     caf::reacts_to<SendEnd>>;

}  // namespace kdn::actors

#endif  // KDN_ACTORS_MESSAGES_H_
