#ifndef KDN_KV_ROPE_SPEC_H_
#define KDN_KV_ROPE_SPEC_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"

namespace kdn {

enum class RopeScaling : uint8_t {
  kNone = 0,
  kLinear = 1,
  kLlama3 = 2,
  kYarn = 3,
};

// Which elements of a head are rotated together: (i, i + rotary_dim / 2), as in
// NeoX and every Hugging Face Llama, or (2i, 2i + 1), as in GPT-J.
enum class RopePairing : uint8_t { kNeoX = 0, kGptJ = 1 };

// Everything that decides the rotation of K at a position. It is part of the
// model's fingerprint, so models that differ here never share a chunk.
struct RopeSpec {
  double theta = 10000.0;
  // The number of elements of a head that are rotated, from the first on; the
  // others stay as they are. Even. 0 in models where K does not depend on its
  // position.
  int rotary_dim = 0;
  RopePairing pairing = RopePairing::kNeoX;
  RopeScaling scaling = RopeScaling::kNone;
  // Linear, Llama-3 and YaRN scaling: the factor by which the context is
  // stretched.
  double factor = 1.0;
  // Llama-3 scaling: wavelengths above original_max_position / low_freq_factor
  // are stretched, those below original_max_position / high_freq_factor are
  // kept, and those between are blended.
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  // Llama-3 and YaRN scaling: the context length before stretching, in tokens.
  int original_max_position = 0;
  // YaRN scaling (Peng et al., arXiv 2309.00071, section 3.2): pairs that turn
  // more than beta_fast times within the original context are kept, pairs that
  // turn less than beta_slow times are stretched, and those between are
  // blended.
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  // cos and sin are multiplied by this; YaRN's default is 0.1 ln(factor) + 1.
  double attention_factor = 1.0;

  bool operator==(const RopeSpec&) const = default;
};

// INVALID_ARGUMENT when a field is invalid for a head of `head_dim` elements;
// the message names the field.
absl::Status Validate(const RopeSpec& spec, int head_dim);

// The inverse frequencies of a RopeSpec, in radians per position: one per
// rotated pair, computed in fp64 by Hugging Face's formulas and rounded to
// fp32. Immutable.
class RopeTable {
 public:
  // REQUIRES: Validate(spec, spec.rotary_dim) is OK.
  explicit RopeTable(const RopeSpec& spec);

  const RopeSpec& spec() const { return spec_; }
  int pairs() const { return static_cast<int>(inv_freq_.size()); }
  const std::vector<float>& inv_freq() const { return inv_freq_; }

  // Computes the cosines and sines of `position`, pairs() floats each, times
  // attention_factor. An engine applies these to q and k.
  void CosSin(int32_t position, float* cos, float* sin) const;
  // Computes the cosines and sines of the angle from one position to another.
  // They do not include the attention factor, because rotated K includes it
  // already.
  void DeltaCosSin(int32_t from, int32_t to, float* cos, float* sin) const;

  // Rotates one head, in place. Elements from rotary_dim on stay as they are.
  void Rotate(const float* cos, const float* sin, float* head) const;
  // Undoes Rotate by the same cosines and sines, including the attention
  // factor, up to rounding in fp32.
  void Unrotate(const float* cos, const float* sin, float* head) const;

 private:
  RopeSpec spec_;
  std::vector<float> inv_freq_;
};

}  // namespace kdn

#endif  // KDN_KV_ROPE_SPEC_H_
