#ifndef KDN_TESTS_CODEC_SUPPORTED_ISAS_H_
#define KDN_TESTS_CODEC_SUPPORTED_ISAS_H_

#include <cstdlib>
#include <vector>

#include "kv/isa.h"

namespace kdn::codec {

// The instruction sets that this CPU has, weakest first.
inline std::vector<Isa> IsasOfThisCpu() {
  std::vector<Isa> isas;
  for (const Isa isa : kIsas) {
    if (Supports(isa)) isas.push_back(isa);
  }
  return isas;
}

// The instruction sets that a test runs for loops that take an Isa: the one
// that KDN_ISA forces, or else all that this CPU has.
inline std::vector<Isa> IsasUnderTest() {
  if (std::getenv("KDN_ISA") != nullptr) return {BestIsa()};
  return IsasOfThisCpu();
}

}  // namespace kdn::codec

#endif  // KDN_TESTS_CODEC_SUPPORTED_ISAS_H_
