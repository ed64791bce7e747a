#ifndef KDN_MODEL_WEIGHTS_H_
#define KDN_MODEL_WEIGHTS_H_

#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "model/config.h"
#include "model/huge_memory.h"
#include "model/linear.h"
#include "model/safetensors.h"

namespace kdn::model {

// The weights of one decoder layer. Q, K and V are one product, in this order.
struct LayerWeights {
  std::vector<float> attention_norm;
  std::vector<float> mlp_norm;
  Linear qkv, o, gate, up, down;
};

struct Weights {
  HugeMemory memory;             // of all matrices
  std::vector<float> embedding;  // [vocab][hidden]
  std::vector<LayerWeights> layers;
  std::vector<float> final_norm;
  std::optional<Linear> output;  // set by LoadWeights

  // Of all matrices that a token is multiplied by, as they are kept.
  size_t matrix_bytes() const;
  // The multiplications and additions of these matrices for one token, without
  // the output layer.
  size_t layer_flops() const;
};

// Errors name the tensor.
absl::StatusOr<Weights> LoadWeights(const Checkpoint& checkpoint,
                                    const ModelConfig& config, Compute compute);

}  // namespace kdn::model

#endif  // KDN_MODEL_WEIGHTS_H_
