#ifndef KDN_KV_ANSWERS_H_
#define KDN_KV_ANSWERS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kv/chunk_key.h"
#include "kv/ids.h"
#include "kv/level.h"
#include "kv/metric_values.h"

// What a KDN answers to an engine. The numbers of the enumerations are those of
// kdn.capnp. Values.
namespace kdn {

// How many copies a store waits for; docs/operations.md, "Durability".
enum class Durability : uint8_t { kCache = 0, kReplicated = 1, kDurable = 2 };

// Where a node keeps a chunk: the faster place when it is in both.
enum class Tier : uint8_t { kMemory = 0, kDisk = 1 };

struct StoreReceipt {
  ChunkKey key;
  ObjectVersion version;
  bool existed = false;  // an earlier object of this key won; nothing changed
  uint64_t bytes = 0;    // of one encoded copy
  std::vector<NodeId> holders;
};

struct LookupResult {
  bool hit = false;
  NodeId node;
  Tier tier = Tier::kMemory;
  LevelSet levels;
  uint64_t bytes = 0;
  ObjectVersion version;
};

// What became of one chunk of a retrieve. Only a hit leaves usable KV in the
// chunk's destination.
enum class OutcomeKind : uint8_t {
  kHit = 0,
  // No node holds the chunk: the engine prefills it. Nobody's fault.
  kMiss = 1,
  // Some node holds the chunk but could not deliver it; `why` says the reason.
  kFailed = 2,
  // The engine prefills the chunk sooner than it could be loaded, or loading
  // would end after the deadline.
  kRecompute = 3,
};

struct ChunkOutcome {
  OutcomeKind kind = OutcomeKind::kMiss;
  absl::Status why;                // kFailed only
  Level level = Level::kLossless;  // the least exact of its layers
  NodeId source;
  Tier tier = Tier::kMemory;
  ObjectVersion version;
  uint64_t wire_bytes = 0;  // that crossed between nodes for the chunk
};

// One node of the configuration.
struct NodeStatus {
  NodeId id;
  std::string gateway_address;
  bool alive = false;
  MetricValues metrics;  // all 0 when the node is not alive
};

}  // namespace kdn

#endif  // KDN_KV_ANSWERS_H_
