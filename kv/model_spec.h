#ifndef KDN_KV_MODEL_SPEC_H_
#define KDN_KV_MODEL_SPEC_H_

#include <string>

#include "absl/status/status.h"
#include "kv/digest.h"
#include "kv/dtype.h"
#include "kv/rope_spec.h"

namespace kdn {

using ModelFingerprint = Digest<struct ModelFingerprintTag>;

// What the KDN must know of a model to keep its KV: geometry, rotation, and the
// digests of what else decides the numbers. The name is for people only.
struct ModelSpec {
  std::string name;
  int num_layers = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  // Of the KV cache in the engine, not of the weights.
  Dtype dtype = Dtype::kBf16;
  RopeSpec rope;
  // Hex or any other stable text that changes when the weights change.
  std::string weights_digest;
  // Likewise for the tokenizer: equal text must give equal token ids.
  std::string tokenizer_digest;

  bool operator==(const ModelSpec&) const = default;
};

// Bounds that keep every size computed from a ModelSpec inside 63 bits.
inline constexpr int kLayersMax = 1024;
inline constexpr int kKvHeadsMax = 1024;
inline constexpr int kHeadDimMax = 4096;
inline constexpr size_t kNameBytesMax = 256;

// INVALID_ARGUMENT naming the field and its bound.
absl::Status Validate(const ModelSpec& spec);

// SHA-256 over every field but the name. Golden vectors in
// tests/kv/golden_vectors_test.cc pin it.
ModelFingerprint FingerprintOf(const ModelSpec& spec);

}  // namespace kdn

#endif  // KDN_KV_MODEL_SPEC_H_
