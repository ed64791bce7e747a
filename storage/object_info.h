#ifndef KDN_STORAGE_OBJECT_INFO_H_
#define KDN_STORAGE_OBJECT_INFO_H_

#include <cstdint>
#include <string>

#include "kv/answers.h"
#include "kv/chunk_key.h"
#include "kv/ids.h"

namespace kdn::storage {

// What a partition knows of a committed object without reading it.
struct ObjectInfo {
  ChunkKey key;
  ShardId shard;
  std::string ns;
  ObjectVersion version;
  uint64_t bytes = 0;
  uint8_t levels = 0;  // LevelSet bits
  Tier tier = Tier::kMemory;
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_OBJECT_INFO_H_
