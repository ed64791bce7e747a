#ifndef KDN_CODEC_KERNELS_ISA_H_
#define KDN_CODEC_KERNELS_ISA_H_

#include <array>
#include <optional>
#include <string_view>

namespace kdn::codec {

// The instruction sets that the codec's loops are compiled for, weakest first.
// Each has the instructions of those before it. Whatever decodes gives the same
// bits on each. Loops that a caller may choose take an Isa as an argument; the
// others take BestIsa(). There is no other choice by what the CPU has.
enum class Isa {
  kScalar,
  kAvx2,
  // F, BW and VL: every server CPU with AVX-512.
  kAvx512,
  // Products of bytes in AVX-512. Skylake-SP has none.
  kVnni,
  // Tiles of bytes and of bf16, and rounding to bf16 in AVX-512. A virtual CPU
  // may have tiles and hide that rounding: then it has kVnni only.
  kAmx,
};
inline constexpr std::array<Isa, 5> kIsas = {
    Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kVnni, Isa::kAmx};

// "scalar", "avx2", "avx512", "vnni", "amx".
std::string_view Name(Isa isa);
std::optional<Isa> ParseIsa(std::string_view name);

// Whether this CPU and its operating system run the instructions.
bool Supports(Isa isa);

// The instruction set of this process: the strongest that is supported, but
// none above the one that the environment variable KDN_ISA names. A name that
// is unknown limits nothing. Read once.
Isa BestIsa();

}  // namespace kdn::codec

#endif  // KDN_CODEC_KERNELS_ISA_H_
