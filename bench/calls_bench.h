#ifndef KDN_BENCH_CALLS_BENCH_H_
#define KDN_BENCH_CALLS_BENCH_H_

#include <string>

#include "absl/status/status.h"

namespace kdn::bench {

struct CallsOptions {
  std::string address;  // of a gateway
  std::string kv;       // a file of chunks, one behind the other
  int first = 0;        // number of the first chunk
  int chunks = 48;
  int at_once = 1;  // chunks in flight
};

// The C++ engine of bench/peers.py, whose chunks it uses. Stores chunks,
// retrieves them, compares them with the file and removes them. Prints one JSON
// object with the seconds of storing and of retrieving. DATA_LOSS when other
// bytes come back.
absl::Status RunCallsBench(const CallsOptions& options);

}  // namespace kdn::bench

#endif  // KDN_BENCH_CALLS_BENCH_H_
