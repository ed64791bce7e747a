#ifndef KDN_CLI_LEVEL_FIGURES_H_
#define KDN_CLI_LEVEL_FIGURES_H_

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "codec/calibration/calibration.h"
#include "kv/level.h"
#include "model/llama.h"

namespace kdn::cli {

// What a level costs and what it loses.
struct LevelFigures {
  // Of an object, with the levels that the level refines and all side
  // information.
  double bits_per_value = 0;
  // The mean divergence, in nats, of the logits behind a context from those of
  // its exact KV.
  double divergence = 0;
};

// The transform-coded levels, the least exact first.
inline constexpr std::array kCalibratedLevels = {Level::kArchive, Level::kBase,
                                                 Level::kBase1, Level::kBase2};

// Measures kCalibratedLevels on windows of calibration_run.h. Each context is
// coded as one chunk. REQUIRES: a calibration of this model that joins K and V;
// windows of at least 4 tokens.
absl::StatusOr<std::array<LevelFigures, kCalibratedLevels.size()>>
MeasureLevels(const model::Llama& llama,
              absl::Span<const std::vector<int32_t>> windows,
              const std::shared_ptr<const codec::Calibration>& calibration);

}  // namespace kdn::cli

#endif  // KDN_CLI_LEVEL_FIGURES_H_
