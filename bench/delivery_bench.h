#ifndef KDN_BENCH_DELIVERY_BENCH_H_
#define KDN_BENCH_DELIVERY_BENCH_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace kdn::bench {

struct DeliveryOptions {
  std::string program;             // the kdn program, to start nodes with
  std::string json;                // output file; empty: standard output only
  std::string directory = "/tmp";  // a directory on the disk to measure
  double corpus_gb = 10.0;         // KV that the part "store" stores
  std::vector<std::string> parts;  // of kDeliveryParts; empty: all
  // "remote" and "lookup" measure nodes with TLS too, beside those without.
  bool tls = false;
};

inline constexpr const char* kDeliveryParts[] = {"memory", "remote", "link",
                                                 "lookup", "disk",   "store"};

// Measures the parts, most of them on two nodes that it starts, and prints one
// JSON object. Takes a few minutes.
absl::Status RunDeliveryBench(const DeliveryOptions& options);

}  // namespace kdn::bench

#endif  // KDN_BENCH_DELIVERY_BENCH_H_
