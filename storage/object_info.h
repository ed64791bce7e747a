#ifndef KDN_STORAGE_OBJECT_INFO_H_
#define KDN_STORAGE_OBJECT_INFO_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "kv/answers.h"
#include "kv/chunk_key.h"
#include "kv/ids.h"

namespace kdn::storage {

// A committed object without its bytes.
struct ObjectInfo {
  ChunkKey key;
  ShardId shard;
  std::string ns;
  ObjectVersion version;
  uint64_t bytes = 0;
  uint8_t levels = 0;  // LevelSet bits
  Tier tier = Tier::kMemory;
  // The strictest durability that a store of the object has asked for.
  Durability durability = Durability::kReplicated;
  // The number of chunks before this one in its chain. 0: none, or not known.
  uint32_t depth = 0;
  // The end of the TTL on the monotonic clock. Until then the object is held.
  // InfinitePast: the object has no TTL. A partition counts the TTLs of the
  // stores that it has acknowledged.
  absl::Time expires = absl::InfinitePast();
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_OBJECT_INFO_H_
