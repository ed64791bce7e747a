#ifndef KDN_MODEL_SAFETENSORS_H_
#define KDN_MODEL_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kv/dtype.h"

namespace kdn::model {

// A tensor in a mapped file. The Checkpoint owns the bytes.
struct Tensor {
  Dtype dtype = Dtype::kFp32;
  std::vector<int64_t> shape;
  absl::Span<const std::byte> bytes;
};

// The weight files of a Hugging Face directory: model.safetensors, or the
// shards that model.safetensors.index.json names. Maps the files read-only and
// owns the mappings. Immutable.
class Checkpoint {
 public:
  // NOT_FOUND when the directory has no weight files. INVALID_ARGUMENT, naming
  // the file and the mistake, when a file is malformed; every offset is checked
  // before it is used.
  static absl::StatusOr<Checkpoint> Open(const std::string& directory);

  // INVALID_ARGUMENT unless there is such a tensor and it has this shape.
  absl::StatusOr<Tensor> Get(const std::string& name,
                             const std::vector<int64_t>& shape) const;
  // Like Get, converted to floats.
  absl::StatusOr<std::vector<float>> GetFloats(
      const std::string& name, const std::vector<int64_t>& shape) const;
  bool Has(const std::string& name) const { return tensors_.contains(name); }
  // The weights' part of ModelSpec::weights_digest: a hex digest
  // ("kdn-weights-1") over the SHA-256 of each file.
  const std::string& digest() const { return digest_; }

 private:
  struct Mapping;
  absl::Status AddFile(const std::string& path);

  std::vector<std::shared_ptr<Mapping>> files_;
  std::map<std::string, Tensor> tensors_;
  std::string digest_;
};

}  // namespace kdn::model

#endif  // KDN_MODEL_SAFETENSORS_H_
