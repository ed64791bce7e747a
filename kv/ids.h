#ifndef KDN_KV_IDS_H_
#define KDN_KV_IDS_H_

#include <compare>
#include <cstdint>
#include <string>
#include <utility>

namespace kdn {

// The name of a node as the configuration writes it ("n1"). Names, not
// positions in a list, so that nodes with different member lists agree.
class NodeId {
 public:
  NodeId() = default;
  explicit NodeId(std::string name) : name_(std::move(name)) {}
  const std::string& name() const { return name_; }
  bool empty() const { return name_.empty(); }
  auto operator<=>(const NodeId&) const = default;
  template <typename H>
  friend H AbslHashValue(H h, const NodeId& id) {
    return H::combine(std::move(h), id.name_);
  }

 private:
  std::string name_;
};

// An integer that does not mix with other integers. `Tag` makes it a type.
template <typename Tag, typename Int>
class StrongInt {
 public:
  constexpr StrongInt() = default;
  constexpr explicit StrongInt(Int value) : value_(value) {}
  constexpr Int value() const { return value_; }
  constexpr auto operator<=>(const StrongInt&) const = default;
  template <typename H>
  friend H AbslHashValue(H h, StrongInt id) {
    return H::combine(std::move(h), id.value_);
  }

 private:
  Int value_ = 0;
};

// A slice of the key space: the unit of placement. In [0, kShards).
using ShardId = StrongInt<struct ShardIdTag, uint32_t>;
// How many shards every cluster has. Part of a cluster's identity: records,
// index keys and shard maps are made with this number, so no option changes it.
inline constexpr uint32_t kShards = 65536;
// Counts the membership changes one node has seen; not comparable across nodes.
using Epoch = StrongInt<struct EpochTag, uint64_t>;
// Names one connected engine at one gateway: what leases belong to.
using SessionId = StrongInt<struct SessionIdTag, uint64_t>;
// The checksum of an object's header and index, hence (through the streams'
// CRCs in the index) of all its bytes. Travels with every read, so that no
// delivery mixes two versions of one key.
using ObjectVersion = StrongInt<struct ObjectVersionTag, uint64_t>;

}  // namespace kdn

#endif  // KDN_KV_IDS_H_
