#ifndef KDN_DELIVERY_RATE_CONTROL_H_
#define KDN_DELIVERY_RATE_CONTROL_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kv/level.h"

// At which levels the chunks of a retrieve come, layer by layer, so that they
// are there by the deadline, and which are better recomputed by the engine.
//
// Time becomes bytes first (BudgetFor: whoever knows the link and the engine),
// then bytes become levels (PlanLevels: whoever knows the objects' indexes).
// The two may be different nodes. Everything here is pure: the same values in,
// the same plan out, on every machine.
//
// Chunks are independent: the KV of a chunk was computed behind the same text,
// so it stays right when one in front of it is recomputed. Whether the engine
// can use it there is another question: see Reuse.
namespace kdn::delivery {

// One way to deliver a chunk.
struct Rung {
  Level level = Level::kLossless;
  // By layer of the slice: all that crosses the link for the layer to be at
  // this rung, lower streams that it refines included.
  std::vector<uint64_t> layer_bytes = {};
  // By layer: what is lost, in a unit that adds up over layers and chunks, e.g.
  // the sum of squared errors over that of the values. What is no number >= 0
  // counts as losing everything.
  std::vector<double> layer_distortion = {};
};

// The ways to deliver one chunk, at most 255, in any order; none of them need
// be better value than the next. None at all: it can only be recomputed.
struct Ladder {
  int tokens = 0;
  uint64_t fixed_bytes = 0;      // at any rung: header and index
  std::vector<Rung> rungs = {};  // each with the same number of layers
};

// What an engine can do with a chunk behind one that it has to recompute.
enum class Reuse : uint8_t {
  kAnyChunk,
  // Nothing, as engines with a prefix cache: chunks are given up from the end.
  kLeadingChunks,
};

// What a link may be asked for. Part of the link is nobody's: estimates err.
inline constexpr double kRateSafety = 0.8;

// What a retrieve has to do with, in the units of whoever measures it.
struct DeliveryTarget {
  // Of the link. Unknown: the best level is asked for, as if there were no
  // limit, because only a transfer can tell; a caller that would rather be
  // careful passes the rate that it assumes.
  std::optional<double> bytes_per_second = std::nullopt;
  // From asking to the first byte.
  absl::Duration latency = absl::ZeroDuration();
  // Of the engine. Zero: it cannot say; then a chunk is recomputed only when it
  // could not be here by the deadline at its cheapest.
  double prefill_tokens_per_second = 0;
  absl::Time now = absl::UnixEpoch();
  absl::Time deadline = absl::InfinitePast();
  LevelSet too_slow = {};  // to decode: recomputing is faster
  Reuse reuse = Reuse::kAnyChunk;
};

// The same as bytes of the link: all that whoever plans has to be told.
struct SendBudget {
  static constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();

  uint64_t bytes_max = 0;  // by the deadline; 0: nothing is loaded
  // What the link carries while the engine prefills one token: where loading
  // costs more, recomputing is faster. Unset: there is nothing to compare with.
  std::optional<double> bytes_per_token_max = std::nullopt;
  uint64_t setup_bytes = 0;  // what it would carry in `latency`
  LevelSet too_slow = {};    // not worth sending
  Reuse reuse = Reuse::kAnyChunk;

  // Everything is loaded, at the best level.
  bool unlimited() const {
    return bytes_max == kNoLimit && !bytes_per_token_max && too_slow.empty();
  }
};

SendBudget BudgetFor(const DeliveryTarget& target);
// The budget of `part` of `all` chunks, when the others need theirs.
SendBudget ShareOf(SendBudget budget, size_t part, size_t all);

struct ChunkPlan {
  bool recompute = true;
  // By layer, into Ladder::rungs. Empty when recomputed: a chunk is delivered
  // whole or not at all.
  std::vector<uint8_t> rung_of_layer;
};

struct LevelPlan {
  std::vector<ChunkPlan> chunks;
  uint64_t bytes = 0;  // all that will cross the link
  int chunks_loaded = 0;
  int64_t tokens_loaded = 0;
  int64_t tokens_recomputed = 0;
  double distortion = 0;  // of what is loaded
  int64_t steps_weighed = 0;
};

// Loads all chunks that can be here in time and are not faster recomputed, at
// their cheapest; then spends what is left where a byte removes most
// distortion, greedily over the convex hull of each layer's rungs. Of equal
// value the lower layer comes first, as on the wire. So:
//   * it is never above bytes_max, nor above what the link carries while the
//     engine prefills the loaded tokens, less setup_bytes: never slower than
//     recomputing them all;
//   * a higher rate never recomputes more tokens, nor the same chunks with more
//     distortion;
//   * distortion is within one step of the least that the budget can buy for
//     the chunks that are loaded.
// Work is n log n, memory n in the number of (chunk, layer, rung). REQUIRES:
// fewer than 65536 layers.
LevelPlan PlanLevels(absl::Span<const Ladder> chunks, const SendBudget& budget);

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_RATE_CONTROL_H_
