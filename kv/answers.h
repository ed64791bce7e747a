#ifndef KDN_KV_ANSWERS_H_
#define KDN_KV_ANSWERS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kv/calibration_id.h"
#include "kv/chunk_key.h"
#include "kv/ids.h"
#include "kv/level.h"
#include "kv/metric_values.h"
#include "kv/model_spec.h"

// The answers that a KDN gives to an engine. The enumerations have the same
// numbers as in rpc/kdn.capnp. All types are plain values.
namespace kdn {

// What a store waits for before it is answered; see docs/operations.md,
// "Durability".
enum class Durability : uint8_t { kCache = 0, kReplicated = 1, kDurable = 2 };

// The place where a node keeps a chunk: the faster place if the chunk is in
// both.
enum class Tier : uint8_t { kMemory = 0, kDisk = 1 };

// The answer to the store of one chunk.
struct StoreReceipt {
  ChunkKey key;
  ObjectVersion version;
  // True when an object of this key was stored before. That object stays, and
  // the new one is dropped.
  bool existed = false;
  uint64_t bytes = 0;           // of one encoded copy
  std::vector<NodeId> holders;  // the nodes that have a copy
};

// A calibration of the cluster.
struct CalibrationEntry {
  CalibrationId id;
  ModelFingerprint model;
  absl::Time created;  // 1970: not known
  uint64_t bytes = 0;
  std::vector<NodeId> holders;  // the live nodes that have it
};

// The answer to the store of a calibration.
struct CalibrationReceipt {
  CalibrationId id;
  std::vector<NodeId> holders;  // the live nodes that have it
};

// The answer to the lookup of one chunk. After a miss only `hit` is set.
struct LookupResult {
  bool hit = false;
  NodeId node;  // a node that has the chunk
  Tier tier = Tier::kMemory;
  LevelSet levels;     // all levels at which the chunk can be delivered
  uint64_t bytes = 0;  // of the encoded object
  ObjectVersion version;
};

// How the retrieve of one chunk ended. The chunk's destination has usable KV
// only after kHit.
enum class OutcomeKind : uint8_t {
  kHit = 0,
  // No node holds the chunk, so the engine prefills it. This is not an error.
  kMiss = 1,
  // A node holds the chunk but could not deliver it. ChunkOutcome::why has the
  // reason.
  kFailed = 2,
  // The KDN leaves the chunk to the engine, because prefilling it is faster
  // than loading it, or because loading would end after the deadline.
  kRecompute = 3,
};

struct ChunkOutcome {
  OutcomeKind kind = OutcomeKind::kMiss;
  absl::Status why;                // kFailed only
  Level level = Level::kLossless;  // of the least exact layer
  NodeId source;
  Tier tier = Tier::kMemory;
  ObjectVersion version;
  uint64_t wire_bytes = 0;  // sent between nodes for the chunk
};

// The status of one node of the configuration.
struct NodeStatus {
  NodeId id;
  std::string gateway_address;
  bool alive = false;
  MetricValues metrics;  // all 0 when the node is not alive
};

}  // namespace kdn

#endif  // KDN_KV_ANSWERS_H_
