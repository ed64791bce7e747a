// Parses any text as a cluster's configuration.

#include "cli/config.h"
#include "kv/check.h"
#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto config = kdn::cli::ParseClusterConfig(
      std::string(reinterpret_cast<const char*>(data), size), "f.yaml");
  if (!config.ok()) {
    KDN_CHECK(absl::IsInvalidArgument(config.status()),
              "a mistake is INVALID_ARGUMENT");
    KDN_CHECK(config.status().message().find("f.yaml") != std::string::npos,
              "an error names the file");
    return 0;
  }
  KDN_CHECK(!config->nodes.empty() && config->replicas >= 1,
            "a cluster has nodes");
  return 0;
}

namespace kdn::fuzz {

std::vector<std::string> Seeds() {
  return {ReadSource("configs/local-3.yaml"), ReadSource("configs/single.yaml"),
          ReadSource("configs/multi-host.yaml")};
}

}  // namespace kdn::fuzz
