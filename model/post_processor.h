#ifndef KDN_MODEL_POST_PROCESSOR_H_
#define KDN_MODEL_POST_PROCESSOR_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "absl/status/statusor.h"

namespace kdn::model {

// The special tokens (BOS) that the `post_processor` of a tokenizer.json puts
// in front of a single text; null puts none. What it puts behind a text is left
// out: a prompt goes on. INVALID_ARGUMENT naming what is malformed,
// UNIMPLEMENTED naming a kind this code does not know.
absl::StatusOr<std::vector<int32_t>> TokensInFront(
    const nlohmann::json& post_processor);

}  // namespace kdn::model

#endif  // KDN_MODEL_POST_PROCESSOR_H_
