#ifndef KDN_CLI_LEVEL_BITS_H_
#define KDN_CLI_LEVEL_BITS_H_

#include <array>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "codec/calibration/calibration.h"
#include "model/llama.h"

namespace kdn::cli {

// Bits per value of an object at base, base+1 and base+2. The bits include the
// levels that each level refines, and all side information.
using LevelBits = std::array<double, codec::kLadderSteps>;

// Prefills the tokens and encodes their KV as one chunk.
// REQUIRES: a calibration of this model; 1 to kChunkTokensMax tokens.
absl::StatusOr<LevelBits> MeasureBits(
    const model::Llama& llama, absl::Span<const int32_t> tokens,
    const std::shared_ptr<const codec::Calibration>& calibration);

}  // namespace kdn::cli

#endif  // KDN_CLI_LEVEL_BITS_H_
