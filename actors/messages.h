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

// The message map: every message that actors exchange, and, at the end of the
// file, every actor with the messages that it understands. A message that stays
// inside one process is in actors/local_calls.h.
//
//   actor            how many               pure class that it drives
//   NodeActor        one per node           none
//   PlacementActor   one per node           placement::Membership
//   ConnectorActor   one per node           none
//   StorageActor     one per partition      storage::Partition
//   RetrieveActor    one per retrieve       delivery::FetchSession
//   StoreActor       one per store          delivery::StoreSession
//   QueryActor       one per lookup, lease  delivery::LookupSession,
//                    change or status call  LeaseSession or ReportSession
//   CopyActor        one per CopyQuery      none
//   CalibrationActor one per node           delivery::CalibrationExchange
//
// The structs below also travel between nodes. Their fields never change: a new
// message gets a new name, and is sent only to nodes of its version
// (docs/protocol.md, "Introductions and versions"). Everything that CAF 0.17
// spells its own way (type registration, inspect) is in this header, so that an
// upgrade of CAF touches this header and the actors only.

namespace kdn::actors {

// Asks a partition which chunks it holds.
struct LookupQuery {
  std::string ns;
  // PackKeys: the keys one after the other. CAF copies one vector of bytes in
  // one piece.
  std::vector<char> keys;
};

// What a partition knows of one key. All fields are 0 when `hit` is false.
struct LookupItem {
  bool hit = false;
  uint8_t tier = 0;      // Tier
  uint8_t levels = 0;    // LevelSet::bits
  uint64_t bytes = 0;    // of the encoded copy
  uint64_t version = 0;  // ObjectVersion
};

using delivery::LeaseOp;

// Asks a partition to pin, unpin or remove chunks.
struct LeaseQuery {
  uint8_t op = 0;  // LeaseOp
  std::string ns;
  std::vector<char> keys;  // PackKeys
  uint64_t session = 0;    // SessionId of the engine that asks
  // How long a pin holds. It counts from the moment when the partition reads
  // the message, because the clocks of two hosts are never compared.
  int64_t ttl_us = 0;
};

// absl::Status on the wire.
struct StatusItem {
  int32_t code = 0;
  std::string message;
};

// Asks a node to send its copy of a chunk to another node.
struct CopyQuery {
  std::string ns;
  std::vector<char> ref;   // PackRef
  uint64_t version = 0;    // the node sends this version or refuses
  std::string to;          // name of the node that gets the copy
  uint8_t durability = 0;  // Durability
  // The TTL of the copy (0: none) and the timeout of the order. Both count from
  // the moment when the node reads the message.
  int64_t ttl_us = 0;
  int64_t timeout_us = 0;
};

// delivery::PushReceipt on the wire. Unless `status` is OK, the other fields
// mean nothing.
struct CopyAnswer {
  StatusItem status;
  uint64_t version = 0;
  bool existed = false;
};

// Tells a node that streams from its copy of a chunk failed their checksums at
// the receiver.
struct SuspectQuery {
  std::string ns;
  std::vector<char> ref;  // PackRef
  uint64_t version = 0;   // of the copy
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
  // Whether the speaking node lists the node that it speaks to. If not, the two
  // fields below mean nothing.
  bool knows_peer = false;
  double peer_weight = 0;
  std::string peer_zone;
};

// Asks a node to join the asking node. The first message between two nodes.
struct JoinQuery {
  IntroductionItem introduction;
};

// The answer to a JoinQuery that is not refused.
struct PeerInfo {
  IntroductionItem introduction;
  // The storage actors of the node that answers. placement::PartitionOf says
  // which of them keeps a shard.
  std::vector<caf::strong_actor_ptr> storage;
};

// The calibrations that a node has. Sent only to nodes of version
// placement::kCalibrationsVersion.
struct CalibrationList {
  std::string node;
  std::vector<char> ids;  // one after the other, 32 bytes each
};

// MetricSample on the wire.
struct MetricItem {
  std::string name;
  uint8_t type = 0;    // MetricType
  uint64_t value = 0;  // of a histogram: the sum of the recorded values
  // Two numbers for each bucket of a histogram that is not empty: the largest
  // value that the bucket takes, and the number of values in it. Empty for
  // other types.
  std::vector<uint64_t> buckets;
};

// The metrics of one node. A metric that is 0 is left out.
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
typename Inspector::result_type inspect(Inspector& f, CalibrationList& l) {
  return f(caf::meta::type_name("CalibrationList"), l.node, l.ids);
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
CAF_ADD_TYPE_ID(kdn, (kdn::actors::CalibrationList))
CAF_ADD_ATOM(kdn, kdn::actors, LookupAtom, "lookup")
CAF_ADD_ATOM(kdn, kdn::actors, LeaseAtom, "lease")
CAF_ADD_ATOM(kdn, kdn::actors, ReleaseAtom, "release")
CAF_ADD_ATOM(kdn, kdn::actors, CopyAtom, "copy")
CAF_ADD_ATOM(kdn, kdn::actors, SuspectAtom, "suspect")
CAF_ADD_ATOM(kdn, kdn::actors, CountAtom, "count")
CAF_ADD_ATOM(kdn, kdn::actors, CalibAtom, "calib")
CAF_ADD_ATOM(kdn, kdn::actors, FlushAtom, "flush")
CAF_ADD_ATOM(kdn, kdn::actors, TickAtom, "tick")
CAF_ADD_ATOM(kdn, kdn::actors, JoinAtom, "join")
CAF_ADD_ATOM(kdn, kdn::actors, ReportAtom, "report")
CAF_ADD_ATOM(kdn, kdn::actors, DeadlineAtom, "deadline")
CAF_ADD_ATOM(kdn, kdn::actors, CancelAtom, "cancel")
CAF_END_TYPE_ID_BLOCK(kdn)

namespace kdn::actors {

// Keeps one partition of a node's shards, in memory and on disk.
using StorageActor = caf::typed_actor<
    // From any node: says which chunks the partition holds, without reading
    // them. One item for each key, in the order of the keys.
    caf::replies_to<LookupAtom, LookupQuery>::with<std::vector<LookupItem>>,
    // From any node: pins, unpins or removes chunks. One status for each key.
    caf::replies_to<LeaseAtom, LeaseQuery>::with<std::vector<StatusItem>>,
    // From any node: the session with this id has ended; drops its pins.
    caf::reacts_to<ReleaseAtom, uint64_t>,
    // From its own node: the metrics of the partition.
    caf::replies_to<CountAtom>::with<std::vector<MetricItem>>,
    // From its own node: answers true once no object waits for the disk.
    caf::replies_to<FlushAtom>::with<bool>,
    // From its own node: calls that carry memory and callbacks.
    caf::reacts_to<ReserveCall>, caf::reacts_to<CommitCall>,
    caf::reacts_to<ReadCall>, caf::reacts_to<DiscardCall>,
    // From the disk tier: a request has ended; the tier has dropped an object.
    caf::reacts_to<DiskAnswer>, caf::reacts_to<DiskEviction>,
    // From itself: the caller of a ReserveCall has given up.
    caf::reacts_to<WithdrawCall>,
    // From itself: ends the leases and the requests whose time is over.
    caf::reacts_to<TickAtom>>;

// The actor of a node that peers dial.
using NodeActor = caf::typed_actor<
    // From a peer: lets the peer join this node. Answers with the handles that
    // the peer needs, or refuses with an error that RefusalIn reads.
    caf::replies_to<JoinAtom, JoinQuery>::with<PeerInfo>,
    // From any node: the metrics of this node.
    caf::replies_to<ReportAtom>::with<NodeReport>,
    // From the node of a store that came too late, because this node has a copy
    // of an earlier store: sends that copy to another owner.
    caf::replies_to<CopyAtom, CopyQuery>::with<CopyAnswer>,
    // From a node that received damaged streams: verifies the copy here, and
    // drops the copy if it is damaged.
    caf::reacts_to<SuspectAtom, SuspectQuery>,
    // From a peer: the calibrations that the peer has. Answers with those of
    // this node.
    caf::replies_to<CalibAtom, CalibrationList>::with<CalibrationList>,
    // From itself: ends the requests for passing memory that are past their
    // deadlines.
    caf::reacts_to<TickAtom>>;

// Sees to it that this node has the calibrations of its peers.
using CalibrationActor = caf::typed_actor<
    // From the node actor: what a peer has. Answers with what this node has.
    caf::replies_to<CalibAtom, CalibrationList>::with<CalibrationList>,
    // From the placement actor: the view has changed.
    caf::reacts_to<ViewChanged>,
    // From the node's services: calls that carry callbacks.
    caf::reacts_to<StoreCalibrationCall>, caf::reacts_to<NeedCalibrationCall>,
    caf::reacts_to<ListCalibrationsCall>,
    // From the worker pool: a calibration was kept here, or was not.
    caf::reacts_to<CalibrationKept>,
    // From itself, with the number of the tick: something is due.
    caf::reacts_to<TickAtom, uint64_t>>;

// Decides which nodes are alive, and publishes a ClusterView after every
// change.
using PlacementActor = caf::typed_actor<
    // From Node::SetMembers: the new member list.
    caf::reacts_to<MembersCall>,
    // From the worker pool: a shard map is built.
    caf::reacts_to<MapBuilt>,
    // From itself, with the number of the tick: dials the peers that are due,
    // and starts a map build that is due.
    caf::reacts_to<TickAtom, uint64_t>>;

// Connects to the control ports of peers.
using ConnectorActor = caf::typed_actor<
    // From the placement actor: the node actor of the peer. A peer that does
    // not prove its name is a refusal (RefusalIn).
    caf::replies_to<DialCall>::with<caf::strong_actor_ptr>,
    // From the network: the connection, or why there is none.
    caf::reacts_to<DialEnd>>;

// One lookup, lease change or status call. Asks all nodes that it concerns, and
// ends when the caller has its answer.
using QueryActor = caf::typed_actor<
    // From itself: gives up the nodes that died and, at the deadline, all
    // nodes.
    caf::reacts_to<TickAtom>>;

// One retrieve. Ends when the engine has its answer.
using RetrieveActor = caf::typed_actor<
    // From a local or remote fetch: the try to get one chunk has ended.
    caf::reacts_to<AttemptEnd>,
    // From a remote fetch: the size of a chunk that a peer begins to send.
    caf::reacts_to<HitSize>,
    // From the passing memory: there is memory to fetch into, or there is none.
    caf::reacts_to<WindowGrant>,
    // From the request's Cancellation: nobody wants the result any more.
    caf::reacts_to<CancelAtom>,
    // From itself: the deadline has come.
    caf::reacts_to<DeadlineAtom>>;

// One store, from its commit on. Ends when every node that was to get a copy
// has answered.
using StoreActor = caf::typed_actor<
    // From the partition or the transport: a node has taken the object, or has
    // failed.
    caf::reacts_to<SendEnd>,
    // From itself: the deadline has come.
    caf::reacts_to<DeadlineAtom>>;

// Sends one object of this node to another node. Ends with its answer.
using CopyActor = caf::typed_actor<
    // From the node actor: the order.
    caf::replies_to<CopyAtom, CopyQuery>::with<CopyAnswer>,
    // From the partition or the transport: the other node has taken the object,
    // or the copy has failed.
    caf::reacts_to<SendEnd>>;

}  // namespace kdn::actors

#endif  // KDN_ACTORS_MESSAGES_H_
