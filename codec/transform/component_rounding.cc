#include "codec/transform/component_rounding.h"

#include <cmath>

#include "codec/entropy/value_distribution.h"
#include "codec/kernels/vector_kernels.h"

namespace kdn::codec {
namespace {

// x / by, rounded to the nearest integer. REQUIRES: `by` is odd.
constexpr int Nearest(int x, int by) {
  return x < 0 ? -((by / 2 - x) / by) : (x + by / 2) / by;
}

bool Split(float component, int8_t* low, int8_t* high) {
  if (!(std::fabs(component) <= static_cast<float>(kWideMax))) return false;
  const int value = static_cast<int>(std::nearbyint(component));
  const int part = Nearest(Nearest(value, CellOf(0)), kHighRadix) * CellOf(0);
  *low = static_cast<int8_t>(value - kHighRadix * part);
  *high = static_cast<int8_t>(part);
  return true;
}

}  // namespace

bool RoundComponents(const StreamTransform& transform, const float* components,
                     int8_t* values) {
  const int wide = transform.wide_bands * kBandComponents;
  int8_t* const high = values + transform.components();
  for (int c = 0; c < wide; ++c) {
    if (!Split(components[c], values + c, high + c)) return false;
  }
  return kernels::RoundToValues(components + wide,
                                transform.components() - wide, kValueMax,
                                values + wide);
}

}  // namespace kdn::codec
