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

// Rate control decides the level of each layer of a retrieve's chunks, so that
// the chunks arrive by the deadline, and which chunks the engine recomputes
// because that is faster.
//
// There are two steps, and different nodes may make them. The node that knows
// the link and the engine turns time into bytes (BudgetFor). The node that
// knows the objects' indexes turns bytes into levels (PlanLevels). Everything
// here is pure: equal values give equal plans on every machine.
//
// Chunks are independent. The KV of a chunk depends only on its text and the
// text before it, so it stays right when the engine recomputes a chunk before
// it. Whether the engine can use the chunk then is another question: see Reuse.
namespace kdn::delivery {

// One way to deliver a chunk.
struct Rung {
  Level level = Level::kLossless;
  // By layer of the slice: the bytes that cross the link when the layer comes
  // at this rung. The streams that the level refines are included.
  std::vector<uint64_t> layer_bytes = {};
  // By layer: the distortion, in a unit that can be summed over layers and
  // chunks, e.g. the sum of squared errors relative to that of the values. A
  // negative value or NaN counts as an infinite distortion.
  std::vector<double> layer_distortion = {};
};

// The ways to deliver one chunk.
struct Ladder {
  int tokens = 0;
  uint64_t fixed_bytes = 0;  // of the header and the index, at any rung
  // At most 255, in any order, all with the same number of layers. A rung may
  // be useless: more bytes and no less distortion than another one. Empty: the
  // chunk can only be recomputed.
  std::vector<Rung> rungs = {};
};

// Which chunks an engine can use when it recomputes some chunks.
enum class Reuse : uint8_t {
  kAnyChunk,
  // Only the chunks before the first recomputed one, as in an engine with a
  // prefix cache. So chunks are given up from the end.
  kLeadingChunks,
};

// The part of a measured rate on which decisions rely, because estimates err.
inline constexpr double kRateSafety = 0.8;

// The time and the rates of a retrieve.
struct DeliveryTarget {
  // The link's rate. Unset: unknown; then the best level is asked for without a
  // limit, because only a transfer can measure the rate. A careful caller
  // passes a rate that it assumes.
  std::optional<double> bytes_per_second = std::nullopt;
  // From the request to the first byte.
  absl::Duration latency = absl::ZeroDuration();
  // The engine's rate. Zero: unknown; then a chunk is recomputed only when it
  // cannot arrive by the deadline at its cheapest level.
  double prefill_tokens_per_second = 0;
  absl::Time now = absl::UnixEpoch();
  absl::Time deadline = absl::InfinitePast();
  LevelSet too_slow = {};  // levels whose decoding is slower than prefilling
  Reuse reuse = Reuse::kAnyChunk;
};

// A DeliveryTarget in bytes of the link: all that the planning node needs.
struct SendBudget {
  static constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();

  uint64_t bytes_max = 0;  // until the deadline; 0: nothing is loaded
  // The bytes that the link carries while the engine prefills one token. When
  // loading takes more bytes per token, recomputing is faster. Unset: the rate
  // of the link or of the engine is unknown.
  std::optional<double> bytes_per_token_max = std::nullopt;
  uint64_t setup_bytes = 0;  // the bytes that the link would carry in `latency`
  LevelSet too_slow = {};    // levels that are not sent
  Reuse reuse = Reuse::kAnyChunk;

  // True when every chunk is loaded at its best level.
  bool unlimited() const {
    return bytes_max == kNoLimit && !bytes_per_token_max && too_slow.empty();
  }
};

SendBudget BudgetFor(const DeliveryTarget& target);
// The budget of `part` of `all` chunks; the other chunks keep their share.
SendBudget ShareOf(SendBudget budget, size_t part, size_t all);

struct ChunkPlan {
  bool recompute = true;
  // By layer: an index into Ladder::rungs. Empty when the chunk is recomputed:
  // a chunk is delivered whole or not at all.
  std::vector<uint8_t> rung_of_layer;
};

struct LevelPlan {
  std::vector<ChunkPlan> chunks;
  uint64_t bytes = 0;  // all bytes that cross the link
  int chunks_loaded = 0;
  int64_t tokens_loaded = 0;
  int64_t tokens_recomputed = 0;
  double distortion = 0;  // sum over the loaded chunks
  int64_t steps_weighed = 0;
};

// Makes a plan in two steps. First, each chunk that can arrive in time, and
// that is not recomputed faster, is loaded at its cheapest rungs. Then the rest
// of the budget goes where a byte removes most distortion, greedily over the
// convex hull of each layer's rungs. Of equal steps the step of the lower layer
// goes first, as on the wire. The plan has these properties:
//   * It takes at most bytes_max, and at most the bytes that the link carries
//     while the engine prefills the loaded tokens, less setup_bytes. So loading
//     is never slower than recomputing all tokens.
//   * A higher rate never recomputes more tokens, and never loads the same
//     chunks with more distortion.
//   * The distortion of the loaded chunks is within one step of the least that
//     the budget allows.
// Takes O(n log n) time and O(n) memory, where n is the number of (chunk,
// layer, rung). REQUIRES: fewer than 65536 layers.
LevelPlan PlanLevels(absl::Span<const Ladder> chunks, const SendBudget& budget);

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_RATE_CONTROL_H_
