#include "model/attention.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kv/check.h"

namespace kdn::model {

HeadAttention::HeadAttention(absl::Span<const float> keys,
                             std::vector<float> values, int dim)
    : dim_(dim),
      slots_(static_cast<int>(keys.size()) / dim),
      keys_(keys.size()),
      values_(std::move(values)),
      weights_(slots_) {
  KDN_CHECK(keys.size() == values_.size() && keys.size() % dim == 0,
            "keys and values are [slots][dim]");
  for (int slot = 0; slot < slots_; ++slot) {
    for (int i = 0; i < dim; ++i) {
      keys_[static_cast<size_t>(i) * slots_ + slot] =
          keys[static_cast<size_t>(slot) * dim + i];
    }
  }
}

void HeadAttention::Attend(absl::Span<const float> query,
                           const Allowed& allowed, absl::Span<float> result) {
  int slots = slots_;
  while (slots > 0 && allowed[slots - 1] == 0) --slots;
  std::fill_n(weights_.begin(), slots, 0.0f);
  for (int i = 0; i < dim_; ++i) {
    const float* key = &keys_[static_cast<size_t>(i) * slots_];
    for (int slot = 0; slot < slots; ++slot) {
      weights_[slot] += query[i] * key[slot];
    }
  }
  const float sum = Exponentials(allowed, slots);
  std::fill(result.begin(), result.end(), 0.0f);
  AddValues(slots, result.data());
  if (sum > 0.0f) {
    for (float& value : result) value /= sum;
  }
}

float HeadAttention::Exponentials(const Allowed& allowed, int slots) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim_));
  float most = -INFINITY;
  for (int slot = 0; slot < slots; ++slot) {
    weights_[slot] *= scale;
    if (allowed[slot] != 0) most = std::max(most, weights_[slot]);
  }
  float sum = 0.0f;
  for (int slot = 0; slot < slots; ++slot) {
    weights_[slot] =
        allowed[slot] != 0 ? std::exp(weights_[slot] - most) : 0.0f;
    sum += weights_[slot];
  }
  return sum;
}

void HeadAttention::AddValues(int slots, float* result) const {
  // Four tokens at a time: `result` is loaded and stored once for them.
  int slot = 0;
  for (; slot + 4 <= slots; slot += 4) {
    const float* w = &weights_[slot];
    const float* v = &values_[static_cast<size_t>(slot) * dim_];
    for (int i = 0; i < dim_; ++i) {
      float sum = result[i];
      for (int token = 0; token < 4; ++token)
        sum += w[token] * v[token * dim_ + i];
      result[i] = sum;
    }
  }
  for (; slot < slots; ++slot) {
    const float* v = &values_[static_cast<size_t>(slot) * dim_];
    for (int i = 0; i < dim_; ++i) result[i] += weights_[slot] * v[i];
  }
}

}  // namespace kdn::model
