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

}  // namespace kdn::rpc

#endif  // KDN_RPC_API_H_
