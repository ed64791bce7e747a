#ifndef KDN_BENCH_BLEND_BENCH_H_
#define KDN_BENCH_BLEND_BENCH_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace kdn::bench {

struct BlendOptions {
  std::string model;               // checkpoint directory
  std::vector<std::string> texts;  // files; empty: questions only
  int questions = 200;             // of each task; 0: texts only
  int documents = 3;               // that a question's case has
  int windows = 16;                // of the texts
  int chunks = 4;                  // of a window
  int chunk_tokens = 128;
  uint64_t seed = 1;
  std::string json;  // output file; empty: standard output only
};

// Measures how near the answers from chunks that were prefilled apart come to
// those of a full prefill: without recomputation, and with every selection at
// several ratios. Questions give the share of right answers; texts give the
// divergence of what follows them. Prints one JSON object.
absl::Status RunBlendBench(const BlendOptions& options);

}  // namespace kdn::bench

#endif  // KDN_BENCH_BLEND_BENCH_H_
