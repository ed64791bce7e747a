#include "codec/kernels/amx.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace kdn::codec::amx {

bool IsUsable() {
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

}  // namespace kdn::codec::amx

#endif
