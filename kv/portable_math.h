#ifndef KDN_KV_PORTABLE_MATH_H_
#define KDN_KV_PORTABLE_MATH_H_

namespace kdn {

// Functions that give the same bits on every machine. The C library's differ
// in the last bit between its versions, and between CPUs with and without
// fused multiply-add; decoded KV would differ with them. These functions use
// only additions, multiplications and divisions of fp64, each rounded
// separately, and exact operations. docs/formats.md ("Arithmetic") has the
// steps. Their errors are below 2^-50 wherever a result is rounded to fp32.

struct Turn {
  double cos = 1.0;
  double sin = 0.0;
};

// The cosine and sine of `angle`, in radians; absolute error below 2^-51. From
// 2^32 on, which no model's positions reach, the angle is first reduced by the
// fp64 number 2 pi, so the result is defined but not accurate. NaN unless the
// angle is finite.
Turn TurnOf(double angle);

// The natural logarithm. Relative error below 2^-50. REQUIRES: `value` is
// finite and above 0.
double PortableLog(double value);
// e^value; relative error below 2^-50 * (1 + |value|). 0 or infinity outside
// fp64's range.
double PortableExp(double value);
// base^exponent = e^(exponent ln base). REQUIRES: `base` is finite and above 0.
double PortablePow(double base, double exponent);

}  // namespace kdn

#endif  // KDN_KV_PORTABLE_MATH_H_
