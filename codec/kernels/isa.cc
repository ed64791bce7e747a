#include "codec/kernels/isa.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace kdn::codec {
namespace {

Isa Strongest() {
  for (Isa isa : {Isa::kAvx512, Isa::kAvx2}) {
    if (Supports(isa)) return isa;
  }
  return Isa::kScalar;
}

Isa Wanted() {
  const char* name = std::getenv("KDN_ISA");
  const std::string_view wanted = name == nullptr ? "" : name;
  if (wanted == "scalar") return Isa::kScalar;
  if (wanted == "avx2") return Isa::kAvx2;
  return Isa::kAvx512;
}

}  // namespace

bool Supports(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return true;
#if defined(__x86_64__)
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") != 0 &&
             __builtin_cpu_supports("fma") != 0;
    case Isa::kAvx512:
      return __builtin_cpu_supports("avx512f") != 0 &&
             __builtin_cpu_supports("avx512bw") != 0 &&
             __builtin_cpu_supports("avx512vl") != 0;
#else
    case Isa::kAvx2:
    case Isa::kAvx512:
      return false;
#endif
  }
  return false;
}

Isa BestIsa() {
  static const Isa best = std::min(Strongest(), Wanted());
  return best;
}

}  // namespace kdn::codec
