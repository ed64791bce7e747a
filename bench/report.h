#ifndef KDN_BENCH_REPORT_H_
#define KDN_BENCH_REPORT_H_

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "absl/status/status.h"

namespace kdn::bench {

// Prints the JSON object of a benchmark to standard output and, unless `file`
// is empty, into that file. UNAVAILABLE when the file cannot be written.
absl::Status PrintReport(const nlohmann::json& json, const std::string& file);

// The last name of a directory's path. The folders above it say nothing of the
// model in it.
std::string NameOfDirectory(const std::string& directory);

}  // namespace kdn::bench

#endif  // KDN_BENCH_REPORT_H_
