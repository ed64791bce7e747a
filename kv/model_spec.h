#ifndef KDN_KV_MODEL_SPEC_H_
#define KDN_KV_MODEL_SPEC_H_

#include <string>

#include "absl/status/status.h"
#include "kv/digest.h"
#include "kv/dtype.h"
#include "kv/rope_spec.h"

namespace kdn {

using ModelFingerprint = Digest<struct ModelFingerprintTag>;

// What the KDN must know about a model to keep its KV: the geometry, the
// rotation of K, and digests of the weights and the tokenizer. The name is for
// people only.
struct ModelSpec {
  std::string name;
  int num_layers = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  // The element type of the engine's KV cache, not of the weights.
  Dtype dtype = Dtype::kBf16;
  RopeSpec rope;
  // A text, such as a hash in hex, that changes exactly when the weights
  // change.
  std::string weights_digest;
  // The same for the tokenizer: with equal digests, equal text must give equal
  // token ids.
  std::string tokenizer_digest;

  bool operator==(const ModelSpec&) const = default;
};

// Bounds that keep every size computed from a ModelSpec inside 63 bits.
inline constexpr int kLayersMax = 1024;
inline constexpr int kKvHeadsMax = 1024;
inline constexpr int kHeadDimMax = 4096;
inline constexpr size_t kNameBytesMax = 256;

// INVALID_ARGUMENT when a field is out of its bounds; the message names both.
absl::Status Validate(const ModelSpec& spec);

// The SHA-256 of all fields but the name. It must never change:
// tests/kv/golden_vectors_test.cc compares it with fixed values.
ModelFingerprint FingerprintOf(const ModelSpec& spec);

}  // namespace kdn

#endif  // KDN_KV_MODEL_SPEC_H_
