#ifndef KDN_KV_ISA_H_
#define KDN_KV_ISA_H_

#include <array>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kdn {

// The instruction sets that the loops of codec/ and model/ are compiled for,
// the weakest first. Each set includes the sets before it. Decoding gives the
// same bits with every set; a forward pass may not. Some loops take an Isa as
// an argument; all others use BestIsa(). Only this file asks what the CPU has.
enum class Isa {
  kScalar,
  kAvx2,
  // AVX-512 F, BW and VL, which every server CPU with AVX-512 has.
  kAvx512,
  // Also AVX-512 VNNI: sums of products of bytes. Skylake-SP lacks it.
  kVnni,
  // Also AMX tiles of bytes and of bf16, and AVX-512 BF16 for rounding. A
  // virtual CPU may have the tiles but hide AVX-512 BF16: then it has kVnni
  // only.
  kAmx,
};
inline constexpr std::array<Isa, 5> kIsas = {
    Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kVnni, Isa::kAmx};

// "scalar", "avx2", "avx512", "vnni" or "amx".
std::string_view Name(Isa isa);
// Nullopt when `name` is not exactly one of these names.
std::optional<Isa> ParseIsa(std::string_view name);

// Whether this CPU and its operating system run the instructions.
bool Supports(Isa isa);

// Whether this CPU multiplies bf16 with AVX-512 BF16. Zen 4 does and has no
// AMX.
bool SupportsAvx512Bf16();

// The strongest supported instruction set up to the one that `limit` names; an
// empty `limit` is no limit. INVALID_ARGUMENT, with all names in the message,
// when `limit` is unknown.
absl::StatusOr<Isa> StrongestIsa(std::string_view limit);

// INVALID_ARGUMENT when the environment variable KDN_ISA is misspelt. A program
// asks at its start, to refuse the value in its own way.
absl::Status CheckIsaVariable();

// The instruction set of this process: StrongestIsa of the environment variable
// KDN_ISA, which is read once. Logs a warning when the CPU lacks the set that
// KDN_ISA names. Ends the process, with the reason on stderr and exit code 2,
// when KDN_ISA is misspelt: a process must never run with another set than the
// forced one unnoticed.
Isa BestIsa();

}  // namespace kdn

#endif  // KDN_KV_ISA_H_
