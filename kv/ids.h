#ifndef KDN_KV_IDS_H_
#define KDN_KV_IDS_H_

#include <compare>
#include <cstdint>
#include <string>
#include <utility>

namespace kdn {

// The name of a node in the configuration ("n1"). It is a name and not a
// position in a list, so that nodes with different member lists mean the same
// node by it.
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

// An integer that does not convert to or from other integers. Each `Tag` makes
// a type of its own.
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

// A part of the key space, and the unit of placement. In [0, kShards).
using ShardId = StrongInt<struct ShardIdTag, uint32_t>;
// The number of shards of every cluster. No option changes it, because records,
// index keys and shard maps depend on it.
inline constexpr uint32_t kShards = 65536;
// The number of membership changes that one node has seen. Epochs of different
// nodes cannot be compared.
using Epoch = StrongInt<struct EpochTag, uint64_t>;
// One connected engine at one gateway. A lease belongs to a session.
using SessionId = StrongInt<struct SessionIdTag, uint64_t>;
// The checksum of an object's header, index and sections. It covers the streams
// too, because the index has the CRC of every stream. Every read carries the
// version, so that no delivery mixes two versions of one key.
using ObjectVersion = StrongInt<struct ObjectVersionTag, uint64_t>;

}  // namespace kdn

#endif  // KDN_KV_IDS_H_
