#include "placement/rendezvous.h"

#include <bit>

namespace kdn::placement {

uint64_t HashOf(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (char c : name) {
    hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  }
  return Mix(hash);
}

double NegativeLog(uint64_t bits) {
  if (bits == 0) bits = 1;
  // u = m * 2^-e. With m in (1/sqrt 2, sqrt 2], the two terms of e ln 2 - ln m
  // never cancel, so the result for a u next to 1 keeps its precision.
  int e = std::countl_zero(bits);
  double m = static_cast<double>((bits << e) >> 11) * 0x1p-53;  // in [1/2, 1)
  if (m < 0x1.6a09e667f3bcdp-1) {
    m *= 2.0;
    ++e;
  }
  // ln m = 2 atanh(s), s = (m - 1) / (m + 1). |s| <= 0.172, so the first term
  // that is left out is 9e-16 of the sum.
  const double s = (m - 1.0) / (m + 1.0);
  const double s2 = s * s;
  // Constants, because a division for each term would take most of the time.
  constexpr double kTerms[] = {1.0,      1.0 / 3,  1.0 / 5,  1.0 / 7, 1.0 / 9,
                               1.0 / 11, 1.0 / 13, 1.0 / 15, 1.0 / 17};
  double sum = 0.0;
  for (int k = 8; k >= 0; --k) sum = sum * s2 + kTerms[k];
  constexpr double kLn2 = 0.693147180559945309417;
  return e * kLn2 - 2.0 * s * sum;
}

}  // namespace kdn::placement
