#include "codec/kernels/isa.h"

#include <cstdlib>

#include "kv/check.h"

#if defined(__x86_64__)
#include "codec/kernels/amx.h"
#endif

namespace kdn::codec {
namespace {

Isa Wanted() {
  const char* name = std::getenv("KDN_ISA");
  return ParseIsa(name == nullptr ? "" : name).value_or(kIsas.back());
}

Isa Resolve() {
  Isa best = Isa::kScalar;
  for (const Isa isa : kIsas) {
    if (isa <= Wanted() && Supports(isa)) best = isa;
  }
  return best;
}

}  // namespace

std::string_view Name(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kVnni:
      return "vnni";
    case Isa::kAmx:
      return "amx";
  }
  KDN_CHECK(false, "instruction set out of range");
  return "";
}

std::optional<Isa> ParseIsa(std::string_view name) {
  for (const Isa isa : kIsas) {
    if (Name(isa) == name) return isa;
  }
  return std::nullopt;
}

bool Supports(Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::kScalar:
      return true;
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") != 0 &&
             __builtin_cpu_supports("fma") != 0;
    case Isa::kAvx512:
      return Supports(Isa::kAvx2) && __builtin_cpu_supports("avx512f") != 0 &&
             __builtin_cpu_supports("avx512bw") != 0 &&
             __builtin_cpu_supports("avx512vl") != 0;
    case Isa::kVnni:
      return Supports(Isa::kAvx512) &&
             __builtin_cpu_supports("avx512vnni") != 0;
    case Isa::kAmx:
      return Supports(Isa::kVnni) &&
             __builtin_cpu_supports("avx512bf16") != 0 && amx::IsUsable();
  }
  return false;
#else
  return isa == Isa::kScalar;
#endif
}

Isa BestIsa() {
  static const Isa best = Resolve();
  return best;
}

}  // namespace kdn::codec
