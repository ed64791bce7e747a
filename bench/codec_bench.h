#ifndef KDN_BENCH_CODEC_BENCH_H_
#define KDN_BENCH_CODEC_BENCH_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace kdn::bench {

struct CodecOptions {
  std::string model;  // checkpoint directory
  std::string text;   // what the model goes on with; empty: the recall tasks
  // What the transform-coded levels are calibrated on; empty: the facts beside
  // the recall model. Should not be `text`.
  std::vector<std::string> calibration_texts;
  double base_bits = 1.5;  // a value, at the base level
  std::string json;        // empty: standard output only
};

// Measures every level of the codec next to CacheGen and KIVI: size, what it
// does to the model's logits, answers, distance to the rate-distortion bound,
// speed next to memcpy. Prints one JSON object. Takes a minute.
absl::Status RunCodecBench(const CodecOptions& options);

}  // namespace kdn::bench

#endif  // KDN_BENCH_CODEC_BENCH_H_
