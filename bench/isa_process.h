#ifndef KDN_BENCH_ISA_PROCESS_H_
#define KDN_BENCH_ISA_PROCESS_H_

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "kv/isa.h"

namespace kdn::bench {

// Runs `kdn bench codec --speeds` in a process of its own, with KDN_ISA set:
// the loops of a process all use one instruction set, which the process chooses
// once. Returns the JSON object that the process writes. `program` is the path
// of kdn. INTERNAL when the process fails.
absl::StatusOr<nlohmann::json> SpeedsWith(const std::string& program,
                                          double base_bits, Isa isa);

}  // namespace kdn::bench

#endif  // KDN_BENCH_ISA_PROCESS_H_
