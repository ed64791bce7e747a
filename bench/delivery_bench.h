#ifndef KDN_BENCH_DELIVERY_BENCH_H_
#define KDN_BENCH_DELIVERY_BENCH_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace kdn::bench {

struct DeliveryOptions {
  std::string program;             // the kdn program, to start nodes with
  std::string json;                // empty: standard output only
  std::string directory = "/tmp";  // where the disk is measured
  double corpus_gb = 10.0;
  std::vector<std::string> parts;  // of kDeliveryParts; empty: all
};

inline constexpr const char* kDeliveryParts[] = {"memory", "remote", "link",
                                                 "lookup", "disk",   "store"};

// Starts two nodes, measures, prints one JSON object. Takes a few minutes.
absl::Status RunDeliveryBench(const DeliveryOptions& options);

}  // namespace kdn::bench

#endif  // KDN_BENCH_DELIVERY_BENCH_H_
