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

// Which elements of a head are rotated together: (i, i + dim/2), as in NeoX and
// every Hugging Face Llama, or (2i, 2i + 1), as in GPT-J.
enum class RopePairing : uint8_t { kNeoX = 0, kGptJ = 1 };

// Everything that decides the rotation of K at a position. Part of the model's
// fingerprint: two models that differ here never share a chunk.
struct RopeSpec {
  double theta = 10000.0;
  // Elements of a head that are rotated; the rest pass through. Even; 0 where
  // K does not turn with its position.
  int rotary_dim = 0;
  RopePairing pairing = RopePairing::kNeoX;
  RopeScaling scaling = RopeScaling::kNone;
  // Linear, Llama-3, YaRN: the context is stretched by this.
  double factor = 1.0;
  // Llama-3: wavelengths above original/low are stretched, below original/high
  // are kept, between are blended.
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  // Llama-3, YaRN: the context length before stretching.
  int original_max_position = 0;
  // YaRN (Peng et al., arXiv 2309.00071, section 3.2).
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  // cos and sin are multiplied by this; YaRN's default is 0.1 ln(factor) + 1.
  double attention_factor = 1.0;

  bool operator==(const RopeSpec&) const = default;
};

// INVALID_ARGUMENT naming the field that makes no sense for a head of
// `head_dim` elements.
absl::Status Validate(const RopeSpec& spec, int head_dim);

// The angles of a RopeSpec: one inverse frequency per rotated pair, in fp32 as
// Hugging Face computes them. Immutable.
class RopeTable {
 public:
  // REQUIRES: Validate(spec, any head_dim >= rotary_dim) is OK.
  explicit RopeTable(const RopeSpec& spec);

  const RopeSpec& spec() const { return spec_; }
  int pairs() const { return static_cast<int>(inv_freq_.size()); }
  const std::vector<float>& inv_freq() const { return inv_freq_; }

  // cos and sin (each pairs() floats) of `position`, times attention_factor:
  // what an engine applies to q and k.
  void CosSin(int32_t position, float* cos, float* sin) const;
  // cos and sin of the angle from one position to another, without the
  // attention factor: re-rotating K that already carries it must not apply it
  // again.
  void DeltaCosSin(int32_t from, int32_t to, float* cos, float* sin) const;

  // Rotates one head (fp32, in place). Elements past rotary_dim are untouched.
  void Rotate(const float* cos, const float* sin, float* head) const;
  // Undoes Rotate exactly up to fp32 rounding, attention factor included.
  void Unrotate(const float* cos, const float* sin, float* head) const;

 private:
  RopeSpec spec_;
  std::vector<float> inv_freq_;
};

}  // namespace kdn

#endif  // KDN_KV_ROPE_SPEC_H_
