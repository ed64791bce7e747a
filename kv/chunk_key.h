#ifndef KDN_KV_CHUNK_KEY_H_
#define KDN_KV_CHUNK_KEY_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kv/digest.h"
#include "kv/model_spec.h"

namespace kdn {

// The key of a chunk: the SHA-256 of its ChunkIdentity, with the first bytes of
// its placement group in front (KeyOf). Two chunks have the same key exactly if
// they have the same tokens behind the same prefix, and the same model, tenant
// and variant. A chunk's shard is computed from the bytes of the group.
using ChunkKey = Digest<struct ChunkKeyTag>;

// The name of a tenant. A namespace is never empty and has no default
// constructor, and every key needs one, so that no adapter can forget the
// tenant.
class Namespace {
 public:
  // INVALID_ARGUMENT unless `text` is 1 to 128 characters of [A-Za-z0-9._-].
  static absl::StatusOr<Namespace> Parse(std::string_view text);
  const std::string& name() const { return name_; }
  auto operator<=>(const Namespace&) const = default;

 private:
  explicit Namespace(std::string name) : name_(std::move(name)) {}
  std::string name_;
};

// The variant name of KV as an engine computed it. Other variants are edits
// that were made offline.
inline constexpr std::string_view kRawVariant = "raw";

// Tokens of one chunk. The last chunk of a text may have fewer.
inline constexpr int kChunkTokens = 256;
// The most tokens that one object may have. No engine needs larger chunks, and
// the bound keeps buffers small.
inline constexpr int kChunkTokensMax = 4096;
// How many consecutive chunks of a chain form a placement group, which lies on
// one shard.
inline constexpr int kPlacementGroupChunks = 16;
// The first bytes of a key. All chunks of a placement group have the same. The
// other 24 bytes tell chunks apart, with 96 bits against collisions.
inline constexpr size_t kPlacementBytes = 8;

// Everything that a ChunkKey is a hash of.
struct ChunkIdentity {
  ModelFingerprint fingerprint;
  Namespace ns;
  // The key of the chunk before this one in its chain. Zero for a standalone
  // chunk: its KV was computed without a prefix, so that it may be blended.
  ChunkKey condition;
  std::string variant = std::string(kRawVariant);
  std::vector<int32_t> tokens;

  bool operator==(const ChunkIdentity&) const = default;
};

// INVALID_ARGUMENT unless the identity has 1 to kChunkTokensMax tokens, no
// negative token id, and a variant of 1 to 128 characters of [A-Za-z0-9._-].
absl::Status Validate(const ChunkIdentity& identity);

// `depth` is the number of chunks before a chunk in its chain. INVALID_ARGUMENT
// when the depth contradicts the condition: a chunk behind another chunk has a
// depth of at least 1, a standalone chunk has depth 0.
absl::Status ValidateDepth(const ChunkIdentity& identity, uint32_t depth);

// The key of a chunk with `depth` chunks before it in its chain: the digest of
// `identity`. Unless the chunk is the first of a placement group, the first
// kPlacementBytes are those of the condition, which is in the same group. So a
// key has one placement, and every node can check it. REQUIRES: the depth
// passes ValidateDepth.
ChunkKey KeyOf(const ChunkIdentity& identity, uint32_t depth);

// Bits of a key that differ between the chunks of a placement group. The first
// bytes of their keys are equal, so they must not decide where chunks are
// spread.
inline uint64_t OwnBits(const ChunkKey& key) {
  uint64_t bits = 0;
  std::memcpy(&bits, key.bytes().data() + kPlacementBytes, sizeof(bits));
  return bits;
}

// A name for log lines and error messages: 4 bytes of the group and 4 of the
// chunk, such as "9dfc56cf..601f0ca5".
inline std::string ShortHex(const ChunkKey& key) {
  const std::string hex = Hex(key);
  return hex.substr(0, 8) + ".." + hex.substr(2 * kPlacementBytes, 8);
}

// Requests name a chunk by its key.
struct ChunkRef {
  ChunkKey key;

  bool operator==(const ChunkRef&) const = default;
  template <typename H>
  friend H AbslHashValue(H h, const ChunkRef& ref) {
    return H::combine(std::move(h), ref.key);
  }
};

// One chunk of a token sequence cut into a prefix chain.
struct ChainChunk {
  ChunkIdentity identity;
  ChunkRef ref;
  // Index of the chunk's first token in the sequence. It is also that token's
  // position if the sequence begins at position 0.
  int begin = 0;
  // The number of chunks before this one in the chain.
  uint32_t depth = 0;
};

// Cuts `tokens` into a chain of chunks of kChunkTokens tokens; the last chunk
// may be shorter. The condition of each chunk is the chunk before. Each
// kPlacementGroupChunks chunks form a placement group. REQUIRES: `tokens` is
// not empty.
std::vector<ChainChunk> CutChain(const ModelFingerprint& fingerprint,
                                 const Namespace& ns,
                                 absl::Span<const int32_t> tokens);

// The key that this build computes for a fixed identity, which `label` names. A
// client and a node compare these keys when they connect. So a client that
// hashes differently is refused at once; without this, all its lookups would
// miss.
struct GoldenVector {
  std::string label;
  ChunkKey key;
};
// The keys are computed and not stored, so that they show how this build really
// hashes.
std::vector<GoldenVector> GoldenVectors();

}  // namespace kdn

#endif  // KDN_KV_CHUNK_KEY_H_
