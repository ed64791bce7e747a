#ifndef KDN_TESTS_MODEL_REFERENCE_PASS_H_
#define KDN_TESTS_MODEL_REFERENCE_PASS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/safetensors.h"

namespace kdn::model {

// A forward pass in plain loops, one token after the other, in fp32 with sums
// in fp64. It shares with model/ only the reading of checkpoints and RoPE's
// table. For tests.
class ReferencePass {
 public:
  explicit ReferencePass(const std::string& directory);

  // Whether the query at one index of the tokens attends to the key at another.
  using Allowed = std::function<bool(int query, int key)>;
  // The logits of all tokens, [tokens][vocab_size].
  std::vector<float> Run(const std::vector<int32_t>& tokens,
                         const std::vector<int32_t>& positions,
                         const Allowed& allowed);
  // Of the last Run: for each layer the attention that each token received,
  // summed over queries and heads.
  const std::vector<std::vector<double>>& mass() const { return mass_; }

 private:
  using Rows = std::vector<std::vector<float>>;

  std::vector<float> Tensor(const std::string& name) const;
  Rows Times(const Rows& x, const std::string& name, bool biased) const;
  Rows Normed(const Rows& x, const std::string& name) const;
  void Rotate(Rows& x, const std::vector<int32_t>& positions) const;
  Rows Attend(const Rows& q, const Rows& k, const Rows& v,
              const Allowed& allowed);

  ModelConfig config_;
  Checkpoint checkpoint_;
  std::vector<std::vector<double>> mass_;
};

}  // namespace kdn::model

#endif  // KDN_TESTS_MODEL_REFERENCE_PASS_H_
