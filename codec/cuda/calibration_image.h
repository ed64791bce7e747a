#ifndef KDN_CODEC_CUDA_CALIBRATION_IMAGE_H_
#define KDN_CODEC_CUDA_CALIBRATION_IMAGE_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "codec/calibration/calibration.h"
#include "codec/cuda/calibration_ref.h"

namespace kdn::codec::cuda {

// A calibration as a warp reads it: arrays without pointers, which are copied
// to a device as they are. Immutable. Keeps the calibration from which it was
// made.
class CalibrationImage {
 public:
  explicit CalibrationImage(std::shared_ptr<const Calibration> calibration);

  const Calibration& calibration() const { return *calibration_; }
  const std::shared_ptr<const Calibration>& shared() const {
    return calibration_;
  }
  // The index of a stream's transform in transforms(). REQUIRES: the transform
  // is one of calibration().
  uint32_t IndexOf(const StreamTransform& transform) const;

  const std::vector<CoderTable>& tables() const { return tables_; }
  const std::vector<ValueTable>& values() const { return values_; }
  const std::vector<TransformRef>& transforms() const { return transforms_; }
  const std::vector<BandRef>& bands() const { return bands_; }
  const std::vector<float>& means() const { return means_; }
  const std::vector<uint32_t>& synthesis() const { return synthesis_; }
  // Points into this object, for code that runs on the CPU.
  CalibrationRef ref() const;

 private:
  void Add(const StreamTransform& transform);
  void AddBands(const StreamTransform& transform);
  // The index in values() of the table that gives the base level's values of
  // such a band as middles of cells.
  uint16_t MiddlesOf(const BandStep& band);

  std::shared_ptr<const Calibration> calibration_;
  absl::flat_hash_map<const StreamTransform*, uint32_t> index_;
  // The results of MiddlesOf, by mode and shrink.
  absl::flat_hash_map<std::pair<BandMode, uint8_t>, uint16_t> middles_;
  std::vector<CoderTable> tables_;
  std::vector<ValueTable> values_;
  std::vector<TransformRef> transforms_;
  std::vector<BandRef> bands_;
  std::vector<float> means_;
  std::vector<uint32_t> synthesis_;
};

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_CALIBRATION_IMAGE_H_
