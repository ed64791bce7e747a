#ifndef KDN_CODEC_CALIBRATION_CALIBRATOR_H_
#define KDN_CODEC_CALIBRATION_CALIBRATOR_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "codec/calibration/calibration_format.h"
#include "kv/kv_view.h"
#include "kv/model_spec.h"

namespace kdn::codec {

// Makes a calibration from KV that a model computed: what `kdn codec calibrate`
// does. A few thousand tokens of text like what will be stored are enough.
//
// Per stream a Karhunen-Loeve transform of the rows before RoPE. Quantiser
// steps follow from reverse water-filling (Cover and Thomas, theorem 10.3.3)
// of the weighted squared error: every component of a layer's K or V has the
// same step, inversely proportional to the root of the weight, so the last bit
// anywhere buys the same. Tables are what the quantised sample looks like,
// pooled over all components of like deviation. Tokens that an encoder keeps
// raw are no part of the sample. Holds it in floats, 4 bytes a value.
// Thread-compatible.
class Calibrator {
 public:
  struct Options {
    // Bits a value that the base level should take; each refinement adds up to
    // 1.6.
    double base_bits = 1.5;
    // How much a squared error in a layer's K or V costs, [layer][K|V]; empty:
    // all alike.
    std::vector<double> weights;
  };

  // INVALID_ARGUMENT when the transform-coded levels cannot code such a model.
  static absl::StatusOr<Calibrator> Create(const ModelSpec& spec);

  // Adds the KV of a run of tokens of all layers, K as rotated at `positions`.
  // INVALID_ARGUMENT for another shape, or for values that are not finite.
  absl::Status Add(const KvView& kv, absl::Span<const int32_t> positions);
  int tokens() const { return tokens_; }
  // Finish takes so many: two a dimension of a stream.
  int TokensMin() const { return 2 * dim_; }
  // Mean squared distance of the values of a layer's K or V from their means.
  double Variance(int layer, KvPart part) const;

  // INVALID_ARGUMENT when there are fewer than TokensMin(), or for weights that
  // are not positive.
  absl::StatusOr<StoredCalibration> Finish(const Options& options) const;

 private:
  explicit Calibrator(const ModelSpec& spec);
  int StreamsOfPart() const { return spec_.num_kv_heads / heads_; }

  ModelSpec spec_;
  int heads_ = 1;  // that share a stream
  int dim_ = 0;
  int tokens_ = 0;
  // Rows before RoPE, [stream][token][dim], of tokens that are not far.
  std::vector<std::vector<float>> samples_;
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_CALIBRATION_CALIBRATOR_H_
