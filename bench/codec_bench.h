#ifndef KDN_BENCH_CODEC_BENCH_H_
#define KDN_BENCH_CODEC_BENCH_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace kdn::bench {

struct CodecOptions {
  std::string model;  // checkpoint directory
  // Files of the texts on which codecs are compared; empty: the recall tasks.
  std::vector<std::string> texts;
  int windows = 8;  // of 1,500 tokens, spread over the texts
  // Files and directories of the texts that the transform-coded levels are
  // calibrated on; empty: the facts beside the recall model. They should not
  // contain `texts`.
  std::vector<std::string> calibration_texts;
  // Starts the program that codes with LMCache's CacheGen, see CoderProcess;
  // empty: this family is not measured.
  std::vector<std::string> lmcache;
  // The families of codecs to measure, as the JSON object names them; empty:
  // all.
  std::vector<std::string> families;
  double base_bits = 1.5;  // bits per value to aim at, at the base level
  std::string json;        // output file; empty: standard output only
  std::string program;     // path of kdn, to measure other instruction sets
  // Only the speeds, with the instruction set of this process (KDN_ISA).
  bool speeds_only = false;
};

// Measures every level of the codec next to CacheGen and KIVI: size, divergence
// of the model's logits, right answers, bits above the rate-distortion bound,
// and the speed next to memcpy of each instruction set that the CPU has. Prints
// one JSON object. Takes some minutes.
absl::Status RunCodecBench(const CodecOptions& options);

}  // namespace kdn::bench

#endif  // KDN_BENCH_CODEC_BENCH_H_
