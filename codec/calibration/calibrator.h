#ifndef KDN_CODEC_CALIBRATION_CALIBRATOR_H_
#define KDN_CODEC_CALIBRATION_CALIBRATOR_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "codec/calibration/calibration_format.h"
#include "codec/calibration/spectrum.h"
#include "codec/stream_codec.h"
#include "kv/kv_view.h"
#include "kv/model_spec.h"

namespace kdn::codec {

// Makes a calibration from KV that a model computed; `kdn codec calibrate` uses
// it. A few thousand tokens are enough, of text that resembles the text to be
// stored.
//
// K and V of several heads share a stream: they tell much about each other.
// Each stream gets a Karhunen-Loeve transform of its rows before RoPE. The
// quantiser steps follow from reverse water-filling (Cover and Thomas,
// theorem 10.3.3) of the weighted squared error: rows are transformed so that
// an error costs the same in every direction, and then all components have the
// same step, so that one more bit lowers the cost equally everywhere. If the
// importance of tokens is known, the calibration predicts it from their rows,
// and important tokens get smaller steps. Tables have the frequencies of the
// quantised sample, pooled over half bands of similar deviation. The
// calibration leaves out tokens that an encoder keeps raw.
//
// Representation: the moments of all tokens, and the rows of some tokens, for
// the tables and predictions, in 4 bytes per value. Thread-compatible.
class Calibrator {
 public:
  struct Options {
    // Bits per value that the base level should take in chunks of a thousand
    // tokens; each refinement adds up to 1.6.
    double base_bits = 1.5;
    // The weight of a squared error in a head's K or V, [layer][K|V][KV head].
    // Empty: all weights are equal.
    std::vector<double> weights;
    // What a row's error e costs: e' M e, where e is an error before RoPE and M
    // is symmetric and not negative. [layer][K|V][KV head], each
    // [head_dim][head_dim]. Each is scaled to the head's weight. Empty: all
    // directions are equal.
    std::vector<std::vector<double>> metrics;
  };

  // INVALID_ARGUMENT when the spec is invalid or the transform-coded levels
  // cannot code such a model. The rows of at most `sample_tokens` tokens, and
  // at least kSampleTokensMin, are kept for the tables.
  static absl::StatusOr<Calibrator> Create(const ModelSpec& spec,
                                           int sample_tokens = kSampleTokens);
  // The bytes that a calibrator takes from the start, without the rows.
  // REQUIRES: Validate(spec) is OK.
  static uint64_t MomentBytes(const ModelSpec& spec);
  static constexpr int kSampleTokens = 8192;
  static constexpr int kSampleTokensMin = 512;
  // K and V of so many heads share a stream that it has at most this many
  // dimensions, or else those of one head. More dimensions take fewer bits: on
  // SmolLM2, 384 take a tenth fewer than 128 for the same divergence. Decoding
  // takes time in proportion to them.
  static constexpr int kJoinedDims = 384;

  // Adds the KV of a run of tokens, of all layers, with K rotated at
  // `positions`. `importance`, [layer][KV head][token], is what a squared error
  // in a token's K and V costs, in any unit of the head; empty: not known.
  // INVALID_ARGUMENT for another shape, or for values that are not finite or
  // importances below 0; nothing is added then.
  absl::Status Add(const KvView& kv, absl::Span<const int32_t> positions,
                   absl::Span<const double> importance = {});
  int tokens() const { return tokens_; }
  // The heads whose K and V share a stream. REQUIRES: Validate(spec) is OK.
  static int JointHeads(const ModelSpec& spec);
  // The fewest tokens that Finish accepts: two per dimension of a stream. For a
  // model, with the errors of Create.
  static absl::StatusOr<int> TokensMin(const ModelSpec& spec);
  int TokensMin() const { return 2 * dim_; }
  // The calibration of all tokens that were added. INVALID_ARGUMENT when there
  // are fewer than TokensMin() tokens, or when weights or metrics are too few,
  // too many, or not positive.
  absl::StatusOr<StoredCalibration> Finish(const Options& options) const;

 private:
  // The rows of one stream, before RoPE, of tokens that are not far.
  struct Stream {
    double tokens = 0;
    std::vector<double> sum;       // [dim]
    std::vector<double> products;  // of x x', [dim][dim]; b <= a only
    std::vector<float> sample;     // [token][dim]
    // The binary logarithm of the importance of each token in the sample, the
    // mean of the heads; NaN where it is not known.
    std::vector<float> importance;
  };

  Calibrator(const ModelSpec& spec, int sample_tokens);
  // The heads of stream `stream`, whose shape is `shape`.
  std::vector<Rows> HeadsOf(const KvView& kv, const StreamShape& shape,
                            size_t stream) const;
  int StreamsOfLayer() const { return spec_.num_kv_heads / heads_; }
  // The importance of a stream's tokens in logarithms, from the importances of
  // Add and the tokens that are far.
  std::vector<float> ImportanceOf(size_t stream, int tokens,
                                  const std::vector<int>& far,
                                  absl::Span<const double> importance) const;
  // Halves the samples when they are too large.
  void Thin();
  std::vector<Spectrum> SpectraOf(const Options& options) const;
  absl::Status Check(const Options& options) const;

  ModelSpec spec_;
  int heads_ = 1;  // whose K and V share a stream
  int dim_ = 0;
  int tokens_ = 0;
  int sample_tokens_;
  int sample_step_ = 1;  // one token of so many is in the samples
  std::vector<Stream> streams_;
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_CALIBRATION_CALIBRATOR_H_
