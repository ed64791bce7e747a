#ifndef KDN_BENCH_PREFILL_BENCH_H_
#define KDN_BENCH_PREFILL_BENCH_H_

#include <string>

#include "absl/status/status.h"

namespace kdn::bench {

struct PrefillOptions {
  std::string model;  // Hugging Face checkpoint directory
  std::string json;   // output file; empty: standard output only
  int tokens = 2048;  // of the text that is prefilled
  int decoded = 64;   // tokens that are decoded behind it
  int rounds = 5;
};

// Measures how fast the engine of the CLI prefills and decodes on all cores,
// next to two limits that are measured in turns with it: the rate at which
// oneDNN multiplies matrices of the model's shapes, and the rate at which the
// cores read the model's weights. Prints one JSON object with medians.
absl::Status RunPrefillBench(const PrefillOptions& options);

}  // namespace kdn::bench

#endif  // KDN_BENCH_PREFILL_BENCH_H_
