#ifndef KDN_TESTS_CODEC_SUPPORTED_ISAS_H_
#define KDN_TESTS_CODEC_SUPPORTED_ISAS_H_

#include <vector>

#include "codec/kernels/isa.h"

namespace kdn::codec {

// What this machine can run of every loop, weakest first.
inline std::vector<Isa> IsasOfThisCpu() {
  std::vector<Isa> isas;
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (Supports(isa)) isas.push_back(isa);
  }
  return isas;
}

}  // namespace kdn::codec

#endif  // KDN_TESTS_CODEC_SUPPORTED_ISAS_H_
