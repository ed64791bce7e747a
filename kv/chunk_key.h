#ifndef KDN_KV_CHUNK_KEY_H_
#define KDN_KV_CHUNK_KEY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kv/digest.h"
#include "kv/model_spec.h"

namespace kdn {

// Names a chunk by its text: equal text behind an equal prefix in the same
// model and tenant has the same key, and nothing else has.
using ChunkKey = Digest<struct ChunkKeyTag>;

// What a shard is computed from. Chunks of one placement group share it.
using PlacementKey = Digest<struct PlacementKeyTag>;

// A tenant. Cannot be empty or default-made, and no key can be made without
// one, so no adapter can forget it.
class Namespace {
 public:
  // INVALID_ARGUMENT unless 1 to 128 characters of [A-Za-z0-9._-].
  static absl::StatusOr<Namespace> Parse(std::string_view text);
  const std::string& name() const { return name_; }
  auto operator<=>(const Namespace&) const = default;

 private:
  explicit Namespace(std::string name) : name_(std::move(name)) {}
  std::string name_;
};

// What "the engine's own KV" is called; other variants are offline edits.
inline constexpr std::string_view kRawVariant = "raw";

// Tokens of one chunk, unless the item ends sooner.
inline constexpr int kChunkTokens = 256;
// Accepted in one object: larger chunks serve no engine and cost bounded
// buffers their meaning.
inline constexpr int kChunkTokensMax = 4096;
// Consecutive chained chunks that share a placement key.
inline constexpr int kPlacementGroupChunks = 16;

// The preimage of a ChunkKey.
struct ChunkIdentity {
  ModelFingerprint fingerprint;
  Namespace ns;
  // Key of the chunk before it when its KV was computed behind that prefix;
  // zero for a standalone chunk, which may be blended.
  ChunkKey condition;
  std::string variant = std::string(kRawVariant);
  std::vector<int32_t> tokens;

  bool operator==(const ChunkIdentity&) const = default;
};

// INVALID_ARGUMENT for no tokens, too many, a negative id, a bad variant.
absl::Status Validate(const ChunkIdentity& identity);

// `depth` is the number of chunks before a chunk in its chain. INVALID_ARGUMENT
// when it contradicts the condition: a chunk behind another one has a depth of
// at least 1, a standalone chunk has depth 0.
absl::Status ValidateDepth(const ChunkIdentity& identity, uint32_t depth);

ChunkKey KeyOf(const ChunkIdentity& identity);

// A chunk and where it is placed: what every request carries.
struct ChunkRef {
  ChunkKey key;
  PlacementKey placement;

  bool operator==(const ChunkRef&) const = default;
  template <typename H>
  friend H AbslHashValue(H h, const ChunkRef& ref) {
    return H::combine(std::move(h), ref.key);
  }
};

// A standalone chunk, or the first of its group, is placed by its own key.
PlacementKey PlacementOf(const ChunkKey& group_head);

// One chunk of a token sequence cut into a prefix chain.
struct ChainChunk {
  ChunkIdentity identity;
  ChunkRef ref;
  // Index of its first token in the sequence, hence its position when the
  // sequence begins at position 0.
  int begin = 0;
  // The number of chunks before it.
  uint32_t depth = 0;
};

// Cuts `tokens` into chunks of kChunkTokens, each conditioned on the one before
// it, and groups them for placement by kPlacementGroupChunks. The last chunk
// may be shorter; `tokens` may not be empty.
std::vector<ChainChunk> CutChain(const ModelFingerprint& fingerprint,
                                 const Namespace& ns,
                                 absl::Span<const int32_t> tokens);

// A fixed identity and its key, exchanged at hello: a client whose hashing
// differs is refused at once instead of missing silently for ever.
struct GoldenVector {
  std::string label;
  ChunkKey key;
};
// Computed, not stored, so that they show what this build really does.
std::vector<GoldenVector> GoldenVectors();

}  // namespace kdn

#endif  // KDN_KV_CHUNK_KEY_H_
