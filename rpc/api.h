#ifndef KDN_RPC_API_H_
#define KDN_RPC_API_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kv/answers.h"
#include "kv/chunk_key.h"
#include "kv/ids.h"
#include "kv/kv_view.h"
#include "kv/level.h"

// What an engine gives to and gets from the client library: plain values, in
// the words of kdn.capnp and with its numbers.
namespace kdn::rpc {

inline constexpr uint32_t kProtocolVersion = 1;
inline constexpr absl::Duration kDefaultTimeout = absl::Seconds(10);
inline constexpr absl::Duration kTimeoutMax = absl::Minutes(10);
inline constexpr absl::Duration kTtlMax = absl::Hours(24 * 30);

// The gateway's node and what it lets one session do.
struct NodeInfo {
  NodeId id;
  std::string software;
  uint32_t chunks_per_call_max = 0;
  uint64_t message_bytes_max = 0;
  uint64_t memory_bytes_max = 0;  // 0: no shared memory on this connection
  uint32_t stores_in_flight_max = 0;
  uint64_t store_bytes_max = 0;
  // What the node can do beyond protocol version 1 (docs/protocol.md).
  std::vector<std::string> features;
};

struct StoreSpec {
  ChunkIdentity identity;
  PlacementKey placement;          // zero: that of a standalone chunk
  std::vector<int32_t> positions;  // one per token
  // What these refine is kept too.
  LevelSet levels = LevelSet::Of(Level::kLossless);
  Durability durability = Durability::kReplicated;
  absl::Duration ttl = absl::ZeroDuration();  // zero: none
  // The number of chunks before it in its chain, see ChainChunk.
  uint32_t depth = 0;
};

struct RetrieveChunk {
  ChunkRef ref;
  std::vector<int32_t> positions;  // where the engine wants the tokens
  MutableKvView destination;       // of the slice, all its layers
};

struct RetrieveSpec {
  std::vector<RetrieveChunk> chunks;
  std::optional<KvSlice> slice = std::nullopt;  // none: the whole model
  // The best one is delivered that is held and that there is time for.
  LevelSet accept = LevelSet::All();
  // Of the engine: a chunk that would take longer to load or to decode is
  // kRecompute. Zero: unknown.
  double prefill_tokens_per_second = 0;
  // The engine has no use for a chunk behind one that it recomputes.
  bool leading_chunks = false;
};

// Counters of one node's storage since it started; kdn.capnp explains them.
struct StoreCounters {
  uint64_t lookups = 0;
  uint64_t hits_memory = 0;
  uint64_t hits_disk = 0;
  uint64_t misses = 0;
  uint64_t failures = 0;
  uint64_t commits = 0;
  uint64_t commits_existed = 0;
  uint64_t evictions = 0;
  uint64_t evictions_lost = 0;
  uint64_t damaged = 0;
  uint64_t removed = 0;
  uint64_t objects = 0;
  uint64_t memory_objects = 0;
  uint64_t memory_bytes = 0;
  uint64_t disk_bytes = 0;
  uint64_t leases = 0;
};

struct DiskCounters {
  uint64_t live_bytes = 0;
  uint64_t segment_bytes = 0;
  uint64_t segments = 0;
  uint64_t objects = 0;
  uint64_t writes = 0;
  uint64_t reads = 0;
  uint64_t bytes_written = 0;
  uint64_t bytes_read = 0;
  uint64_t evictions = 0;
  uint64_t damaged = 0;
  uint64_t cleaned_segments = 0;
  uint64_t rebuilt_objects = 0;
  bool io_uring = false;
  bool direct = false;
};

struct RateCounters {
  uint64_t plans = 0;
  uint64_t plans_blind = 0;
  uint64_t chunks_loaded = 0;
  uint64_t chunks_recomputed = 0;
  uint64_t bytes_predicted = 0;
  uint64_t bytes_actual = 0;
  uint64_t load_us_predicted = 0;
  uint64_t load_us_actual = 0;
  uint64_t late = 0;
  uint64_t slower_than_recompute = 0;
};

struct NodeStatus {
  NodeId id;
  std::string gateway_address;
  bool alive = false;
  uint64_t epoch = 0;
  uint64_t shards_primary = 0;
  uint64_t shards_held = 0;
  StoreCounters store;
  DiskCounters disk;
  uint64_t stores = 0;
  uint64_t retrieves = 0;
  uint64_t chunks_hit = 0;
  uint64_t chunks_missed = 0;
  uint64_t chunks_failed = 0;
  uint64_t chunks_recomputed = 0;
  RateCounters rate;
  uint64_t peer_bytes_in = 0;
  uint64_t peer_bytes_out = 0;
  uint64_t engine_bytes_in = 0;
  uint64_t engine_bytes_out = 0;
  uint64_t memory_budget_bytes = 0;
  uint64_t rss_bytes = 0;
  uint64_t uptime_s = 0;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_API_H_
