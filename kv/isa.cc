#include "kv/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kv/check.h"
#include "kv/log.h"

namespace kdn {
namespace {

// The value of KDN_ISA; empty when it is not set.
std::string_view IsaVariable() {
  const char* value = std::getenv("KDN_ISA");
  return value == nullptr ? "" : value;
}

Isa Resolve() {
  const std::string_view limit = IsaVariable();
  const absl::StatusOr<Isa> isa = StrongestIsa(limit);
  if (!isa.ok()) {
    std::fprintf(stderr, "%s\n", std::string(isa.status().message()).c_str());
    // Any thread may be the first to ask, so no destructors run.
    std::_Exit(2);
  }
  if (!limit.empty() && Name(*isa) != limit) {
    LogWarning(
        "codec.isa",
        absl::StrCat("this CPU lacks the instruction set ", std::string(limit),
                     ", which KDN_ISA names: the process uses ",
                     std::string(Name(*isa))));
  }
  return *isa;
}

#if defined(__x86_64__)

// Whether this process may use AMX tiles of int8 and bf16. The first call asks
// the operating system for them.
bool AmxIsUsable() {
  static const bool usable = [] {
    constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
    constexpr long kTileData = 18;
    // CPUID leaf 7, EDX: AMX-BF16, AMX-TILE, AMX-INT8.
    constexpr unsigned kBits = 1u << 22 | 1u << 24 | 1u << 25;
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
    if ((edx & kBits) != kBits) return false;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return usable;
}

#endif

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
      return Supports(Isa::kVnni) && SupportsAvx512Bf16() && AmxIsUsable();
  }
  return false;
#else
  return isa == Isa::kScalar;
#endif
}

bool SupportsAvx512Bf16() {
#if defined(__x86_64__)
  return Supports(Isa::kAvx512) && __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

absl::StatusOr<Isa> StrongestIsa(std::string_view limit) {
  const std::optional<Isa> most =
      limit.empty() ? kIsas.back() : ParseIsa(limit);
  if (!most) {
    return absl::InvalidArgumentError(
        absl::StrCat("KDN_ISA is '", std::string(limit), "', expected one of ",
                     absl::StrJoin(kIsas, ", ", [](std::string* out, Isa isa) {
                       out->append(Name(isa));
                     })));
  }
  Isa best = Isa::kScalar;
  for (const Isa isa : kIsas) {
    if (isa <= *most && Supports(isa)) best = isa;
  }
  return best;
}

absl::Status CheckIsaVariable() { return StrongestIsa(IsaVariable()).status(); }

Isa BestIsa() {
  static const Isa best = Resolve();
  return best;
}

}  // namespace kdn
