#ifndef KDN_CLI_CLUSTER_CALIBRATION_H_
#define KDN_CLI_CLUSTER_CALIBRATION_H_

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cli/calibration_run.h"
#include "codec/calibration/calibration_format.h"
#include "kv/level.h"
#include "model/llama.h"
#include "model/tokenizer.h"
#include "rpc/client/client.h"

namespace kdn::cli {

// Calibrates, with a progress bar, and measures the levels. The file says when
// it was made, on how many tokens, on which text, and what the levels cost and
// lose.
absl::StatusOr<codec::StoredCalibration> MakeCalibration(
    const model::Llama& llama, const CalibrationText& text, double base_bits);

// Stores the file of a calibration in the cluster, and prints which nodes have
// it.
absl::Status StoreInCluster(rpc::Client& client,
                            absl::Span<const std::byte> file);

// What `kdn inject` does about a calibration.
struct InjectCalibration {
  bool off = false;
  // Files and directories of the texts to calibrate on; none: those that are
  // injected, and the standard texts.
  std::vector<std::string> texts;
};

// Sees to it that the cluster has a calibration of the model before KV is
// stored at `levels`: makes one, and says so, if a level needs one and the
// cluster has none. If the texts are too short, says that the built-in
// calibration is used, and goes on. Texts that the user named for the
// calibration, and that are too short, are INVALID_ARGUMENT.
absl::Status EnsureCalibration(
    const model::Llama& llama, const model::Tokenizer& tokenizer,
    rpc::Client& client, LevelSet levels, const InjectCalibration& how,
    const std::vector<std::filesystem::path>& injected);

}  // namespace kdn::cli

#endif  // KDN_CLI_CLUSTER_CALIBRATION_H_
