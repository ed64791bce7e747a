#include "kv/rope_spec.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "kv/portable_math.h"

namespace kdn {
namespace {

constexpr double kTwoPi = 2.0 * std::numbers::pi;

// Llama 3.1's scaling: the frequencies of long wavelengths are divided by the
// factor, those of short wavelengths are kept, and those between are a linear
// blend.
double Llama3InvFreq(const RopeSpec& spec, double inv_freq) {
  const double wavelength = kTwoPi / inv_freq;
  const double original = spec.original_max_position;
  if (wavelength > original / spec.low_freq_factor) {
    return inv_freq / spec.factor;
  }
  if (wavelength < original / spec.high_freq_factor) return inv_freq;
  const double smooth = (original / wavelength - spec.low_freq_factor) /
                        (spec.high_freq_factor - spec.low_freq_factor);
  return (1.0 - smooth) * inv_freq / spec.factor + smooth * inv_freq;
}

// YaRN section 3.2: the index of the pair, as a real number, that makes
// `rotations` full turns within the original context.
double YarnDimension(const RopeSpec& spec, double rotations) {
  return spec.rotary_dim *
         PortableLog(spec.original_max_position / (rotations * kTwoPi)) /
         (2.0 * PortableLog(spec.theta));
}

double YarnInvFreq(const RopeSpec& spec, int pair, double inv_freq) {
  const double low =
      std::max(std::floor(YarnDimension(spec, spec.beta_fast)), 0.0);
  double high = std::min(std::ceil(YarnDimension(spec, spec.beta_slow)),
                         spec.rotary_dim - 1.0);
  if (high == low) high += 0.001;  // avoids 0/0, as Hugging Face does
  const double ramp = std::clamp((pair - low) / (high - low), 0.0, 1.0);
  return inv_freq / spec.factor * ramp + inv_freq * (1.0 - ramp);
}

double InvFreq(const RopeSpec& spec, int pair) {
  const double plain =
      1.0 / PortablePow(spec.theta, 2.0 * pair / spec.rotary_dim);
  switch (spec.scaling) {
    case RopeScaling::kNone:
      return plain;
    case RopeScaling::kLinear:
      return plain / spec.factor;
    case RopeScaling::kLlama3:
      return Llama3InvFreq(spec, plain);
    case RopeScaling::kYarn:
      return YarnInvFreq(spec, pair, plain);
  }
  KDN_CHECK(false, "scaling out of range");
  return 0.0;
}

bool IsPositive(double value) { return std::isfinite(value) && value > 0.0; }

absl::Status Invalid(const char* field, double value, const char* expected) {
  return absl::InvalidArgumentError(
      absl::StrCat("rope.", field, " is ", value, ", expected ", expected));
}

absl::Status ValidateScaling(const RopeSpec& spec) {
  if (spec.scaling > RopeScaling::kYarn) {
    return Invalid("scaling", static_cast<int>(spec.scaling), "0 to 3");
  }
  if (spec.scaling == RopeScaling::kNone) return absl::OkStatus();
  if (spec.scaling == RopeScaling::kLinear) return absl::OkStatus();
  if (spec.original_max_position < 1) {
    return Invalid("original_max_position", spec.original_max_position,
                   "at least 1");
  }
  if (spec.scaling == RopeScaling::kLlama3 &&
      !(IsPositive(spec.low_freq_factor) &&
        spec.high_freq_factor > spec.low_freq_factor)) {
    return Invalid("high_freq_factor", spec.high_freq_factor,
                   "more than a positive low_freq_factor");
  }
  if (spec.scaling == RopeScaling::kYarn &&
      !(IsPositive(spec.beta_fast) && IsPositive(spec.beta_slow))) {
    return Invalid("beta_fast", spec.beta_fast, "above 0, like beta_slow");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Validate(const RopeSpec& spec, int head_dim) {
  if (!IsPositive(spec.theta) || spec.theta <= 1.0) {
    return Invalid("theta", spec.theta, "a finite number above 1");
  }
  if (spec.rotary_dim < 0 || spec.rotary_dim > head_dim ||
      spec.rotary_dim % 2 != 0) {
    return Invalid("rotary_dim", spec.rotary_dim,
                   "an even number from 0 to head_dim");
  }
  if (spec.pairing > RopePairing::kGptJ) {
    return Invalid("pairing", static_cast<int>(spec.pairing), "0 or 1");
  }
  if (!IsPositive(spec.factor)) return Invalid("factor", spec.factor, "> 0");
  if (!IsPositive(spec.attention_factor)) {
    return Invalid("attention_factor", spec.attention_factor, "> 0");
  }
  // Checked even if the scaling does not use them, because the fingerprint
  // covers them.
  for (const auto& [name, value] :
       {std::pair<const char*, double>{"low_freq_factor", spec.low_freq_factor},
        {"high_freq_factor", spec.high_freq_factor},
        {"beta_fast", spec.beta_fast},
        {"beta_slow", spec.beta_slow}}) {
    if (!std::isfinite(value)) return Invalid(name, value, "a finite number");
  }
  return ValidateScaling(spec);
}

RopeTable::RopeTable(const RopeSpec& spec) : spec_(spec) {
  inv_freq_.reserve(spec.rotary_dim / 2);
  for (int pair = 0; pair < spec.rotary_dim / 2; ++pair) {
    inv_freq_.push_back(static_cast<float>(InvFreq(spec, pair)));
  }
}

void RopeTable::CosSin(int32_t position, float* cos, float* sin) const {
  const float scale = static_cast<float>(spec_.attention_factor);
  for (int pair = 0; pair < pairs(); ++pair) {
    const float angle = static_cast<float>(position) * inv_freq_[pair];
    const Turn turn = TurnOf(angle);
    cos[pair] = static_cast<float>(turn.cos) * scale;
    sin[pair] = static_cast<float>(turn.sin) * scale;
  }
}

void RopeTable::DeltaCosSin(int32_t from, int32_t to, float* cos,
                            float* sin) const {
  // The engine rotated by fp32(position * inv_freq), so the angle to add is the
  // difference of exactly these products.
  for (int pair = 0; pair < pairs(); ++pair) {
    const double turned = static_cast<float>(from) * inv_freq_[pair];
    const double wanted = static_cast<float>(to) * inv_freq_[pair];
    const Turn turn = TurnOf(wanted - turned);
    cos[pair] = static_cast<float>(turn.cos);
    sin[pair] = static_cast<float>(turn.sin);
  }
}

namespace {

// (x, y) -> scale * (x cos - y sin, y cos + x sin) for every pair. A `sign` of
// -1 rotates back.
void TurnPairs(RopePairing pairing, int pairs, const float* cos,
               const float* sin, float sign, float scale, float* head) {
  const int step = pairing == RopePairing::kNeoX ? 1 : 2;
  const int other = pairing == RopePairing::kNeoX ? pairs : 1;
  for (int pair = 0; pair < pairs; ++pair) {
    float& x = head[pair * step];
    float& y = head[pair * step + other];
    const float c = cos[pair] * scale;
    const float s = sin[pair] * scale * sign;
    const float turned_x = x * c - y * s;
    y = y * c + x * s;
    x = turned_x;
  }
}

}  // namespace

void RopeTable::Rotate(const float* cos, const float* sin, float* head) const {
  TurnPairs(spec_.pairing, pairs(), cos, sin, 1.0f, 1.0f, head);
}

void RopeTable::Unrotate(const float* cos, const float* sin,
                         float* head) const {
  // cos and sin include the attention factor a. Rotating back multiplies by a
  // once more, so dividing by a^2 undoes both.
  const double a = spec_.attention_factor;
  TurnPairs(spec_.pairing, pairs(), cos, sin, -1.0f,
            static_cast<float>(1.0 / (a * a)), head);
}

}  // namespace kdn
