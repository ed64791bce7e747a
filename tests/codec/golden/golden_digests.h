#ifndef KDN_TESTS_CODEC_GOLDEN_GOLDEN_DIGESTS_H_
#define KDN_TESTS_CODEC_GOLDEN_GOLDEN_DIGESTS_H_

#include <cstddef>
#include <string>
#include <vector>

#include "codec/calibration/calibration.h"
#include "kv/isa.h"

namespace kdn::codec {

// Golden files are objects and calibrations of each version of the format, and
// digests of the objects' rows: tests/codec/golden/README.md.

std::vector<std::byte> ReadWholeFile(const std::string& path);
// The SHA-256 in hex digits.
std::string Sha256Text(absl::Span<const std::byte> bytes);

// One line for each thing that must never change about an object: "<what>
// <SHA-256>". `what` is "object" for its bytes, "<level> stored", "<level>
// origin" and "<level> moved" for the rows that it decodes to:
//
//   stored  at the positions where the KV was computed,
//   origin  with every position 0,
//   moved   at other positions.
//
// The rows of `stored` and `moved` are there only where their bits do not
// depend on the C library. The cosine of an angle in fp32 may differ in its
// last bit between libraries and between CPUs, so K that is coded before RoPE
// is digested at the origin only, where every angle is zero. K of the lossless
// level turns by cosines in fp64 that are rounded to fp32: the differences
// vanish. A chunk without RoPE has all three. A chunk that no decoder supports
// has no rows. CHECK-fails if the object does not parse, verify or decode.
// REQUIRES: `calibrations` has the calibration that the object names.
std::vector<std::string> DigestsOf(absl::Span<const std::byte> object,
                                   CalibrationSet* calibrations, Isa isa);

}  // namespace kdn::codec

#endif  // KDN_TESTS_CODEC_GOLDEN_GOLDEN_DIGESTS_H_
