#include "kv/portable_math.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>

namespace kdn {
namespace {

constexpr double kAngleMax = 0x1p32;

// pi / 2 in four parts. The first three have 21 bits, so that their products
// with a number of up to 32 bits are exact (Cody and Waite, 1980).
constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;
constexpr double kHalfPi1 = 0x1.921fb00000000p+0;
constexpr double kHalfPi2 = 0x1.5110a00000000p-22;
constexpr double kHalfPi3 = 0x1.4611a00000000p-42;
constexpr double kHalfPi4 = 0x1.898cc51701b84p-64;

// ln 2 in two parts. The first has 32 bits, so that its product with an
// exponent is exact.
constexpr double kOneOverLn2 = 0x1.71547652b82fep+0;
constexpr double kLn2High = 0x1.62e42fee00000p-1;
constexpr double kLn2Low = 0x1.a39ef35793c76p-33;

// sum of coefficients[i] x^i by Horner's rule.
template <size_t kCount>
double Polynomial(const std::array<double, kCount>& coefficients, double x) {
  double sum = coefficients[kCount - 1];
  for (size_t i = kCount - 1; i-- > 0;) sum = sum * x + coefficients[i];
  return sum;
}

// 1 / (first + i * step)!, negative at every odd i if `alternates`.
template <size_t kCount>
constexpr std::array<double, kCount> Factorials(int first, int step,
                                                bool alternates) {
  std::array<double, kCount> terms{};
  double factorial = 1.0;  // exact: below 2^53 times a power of two
  int reached = 1;
  for (size_t i = 0; i < kCount; ++i) {
    const int wanted = first + static_cast<int>(i) * step;
    while (reached < wanted) factorial *= ++reached;
    terms[i] = (alternates && i % 2 == 1 ? -1.0 : 1.0) / factorial;
  }
  return terms;
}

// The terms of the Taylor series that count in fp64 for |x| <= pi / 4 (cosine
// and sine, by powers of x^2) and |x| <= ln 2 / 2 (exponential).
constexpr auto kCosTerms = Factorials<9>(0, 2, true);
constexpr auto kSinTerms = Factorials<8>(1, 2, true);
constexpr auto kExpTerms = Factorials<14>(0, 1, false);
// 1, 1/3, 1/5, ...: ln((1 + s) / (1 - s)) / (2 s) by powers of s^2.
constexpr std::array<double, 10> kLogTerms = {
    1.0,        1.0 / 3.0,  1.0 / 5.0,  1.0 / 7.0,  1.0 / 9.0,
    1.0 / 11.0, 1.0 / 13.0, 1.0 / 15.0, 1.0 / 17.0, 1.0 / 19.0};

}  // namespace

Turn TurnOf(double angle) {
  if (!(std::fabs(angle) < kAngleMax)) {
    angle = std::remainder(angle, 2.0 * std::numbers::pi);
  }
  const double quarters = std::nearbyint(angle * kTwoOverPi);
  const double rest = angle - quarters * kHalfPi1 - quarters * kHalfPi2 -
                      quarters * kHalfPi3 - quarters * kHalfPi4;
  const double square = rest * rest;
  const double cos = Polynomial(kCosTerms, square);
  const double sin = rest * Polynomial(kSinTerms, square);
  if (!std::isfinite(quarters)) return {quarters, quarters};  // NaN
  switch (static_cast<int64_t>(quarters) & 3) {
    case 0:
      return {cos, sin};
    case 1:
      return {-sin, cos};
    case 2:
      return {-cos, -sin};
    default:
      return {sin, -cos};
  }
}

double PortableLog(double value) {
  int exponent = 0;
  double mantissa = std::frexp(value, &exponent);  // in [1/2, 1)
  if (mantissa < std::numbers::sqrt2 / 2.0) {
    mantissa *= 2.0;
    --exponent;
  }
  const double s = (mantissa - 1.0) / (mantissa + 1.0);
  const double log = 2.0 * s * Polynomial(kLogTerms, s * s);
  return exponent * kLn2High + (exponent * kLn2Low + log);
}

double PortableExp(double value) {
  // Beyond these limits the result is 0 or infinity anyhow.
  value = std::clamp(value, -1000.0, 1000.0);
  const double twos = std::nearbyint(value * kOneOverLn2);
  const double rest = value - twos * kLn2High - twos * kLn2Low;
  return std::ldexp(Polynomial(kExpTerms, rest), static_cast<int>(twos));
}

double PortablePow(double base, double exponent) {
  return PortableExp(exponent * PortableLog(base));
}

}  // namespace kdn
