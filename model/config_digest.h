#ifndef KDN_MODEL_CONFIG_DIGEST_H_
#define KDN_MODEL_CONFIG_DIGEST_H_

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "absl/status/statusor.h"

namespace kdn::model {

// Returns a hex digest of everything in a config.json that decides how KV is
// computed. Every field counts, known or unknown, except fields that are listed
// in the .cc with the reason, and fields with the value that a config may leave
// out. `kind` is the model_type. `slides` says whether a layer may use a
// sliding window. INVALID_ARGUMENT when the config is nested too deeply.
// python/kdn/config_digest.py computes the same digest, and kdn.capnp describes
// the bytes that are hashed.
absl::StatusOr<std::string> ConfigDigest(const nlohmann::json& config,
                                         const std::string& kind, bool slides);

// Returns ModelSpec::weights_digest: a hex digest of the digest of the weights
// and the digest of the config.
std::string ModelDigest(const std::string& weights_digest,
                        const std::string& config_digest);

}  // namespace kdn::model

#endif  // KDN_MODEL_CONFIG_DIGEST_H_
