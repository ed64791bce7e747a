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

// The values that an engine gives to the client library and gets from it. Names
// and numbers are those of kdn.capnp.
namespace kdn::rpc {

inline constexpr uint32_t kProtocolVersion = 2;
inline constexpr absl::Duration kDefaultTimeout = absl::Seconds(10);
inline constexpr absl::Duration kTimeoutMax = absl::Minutes(10);
inline constexpr absl::Duration kTtlMax = absl::Hours(24 * 30);

// The gateway's node, and the limits of one session.
struct NodeInfo {
  NodeId id;
  std::string software;
  uint32_t chunks_per_call_max = 0;
  uint64_t message_bytes_max = 0;
  uint64_t memory_bytes_max = 0;  // 0: no shared memory on this connection
  uint32_t stores_in_flight_max = 0;
  uint64_t store_bytes_max = 0;
  // What the node can do beyond protocol version 2 (docs/protocol.md).
  std::vector<std::string> features;
};

struct StoreSpec {
  ChunkIdentity identity;
  std::vector<int32_t> positions;  // one per token
  // The levels to keep. The levels that they refine are kept too.
  LevelSet levels = LevelSet::Of(Level::kLossless);
  Durability durability = Durability::kReplicated;
  absl::Duration ttl = absl::ZeroDuration();  // zero: none
  // The number of chunks before this one in its chain: see ChainChunk.
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
  // Each layer comes at the most exact accepted level that the copy keeps and
  // for which there is time.
  LevelSet accept = LevelSet::All();
  // How fast the engine prefills; zero: unknown. A chunk that takes longer to
  // load or to decode is kRecompute.
  double prefill_tokens_per_second = 0;
  // True: the engine cannot use a chunk behind one that it recomputes.
  bool leading_chunks = false;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_API_H_
